"""What the alert and recording rules cost Prometheus: the shipped files over a fleet, by its own measure."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.alerts.rules import RULE_FILES, load_yaml, write_without_intervals
from tests.bench.fleet import exposed, served
from tests.bench.tables import Limit, limits, table
from tests.e2e.prometheus import PROGRAM, Prometheus, running_prometheus
from tests.support.waiting import until

_SERVERS, _CLIENTS, _SESSIONS = 50, 20, 10
#: So many of the servers have a client that leaks; each alert asks Prometheus for its texts.
_LEAKING = 5
#: As many evaluations as the longest range of a recorded series holds (30 m at 15 s), then those that count.
_EVALUATIONS, _COUNTED = 120, 30
#: Faster than shipped, which fills that range in less time.
_EVALUATION_INTERVAL = "500ms"
_DONE, _LAST = "prometheus_rule_group_iterations_total", "prometheus_rule_group_last_duration_seconds"

#: Milliseconds of each counted evaluation, by the name of what was evaluated.
Costs = dict[str, list[float]]


def bench() -> Iterator[str]:
    """Evaluate the rules until their ranges are full, and show what each group and the dearest rules take."""
    if PROGRAM is None:
        yield "rules: skipped, Prometheus is not installed: apt install prometheus\n"
        return
    healthy, leaking = (exposed("SERVER", clients=_CLIENTS, sessions=_SESSIONS, leaking=many) for many in (0, 1))
    pages = {
        f"/{number}": (leaking if number < _LEAKING else healthy).replace(b"SERVER", b"db-%d" % number)
        for number in range(_SERVERS)
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        served(pages) as address,
        running_prometheus(_configuration(address, pages, write_without_intervals(Path(folder)))) as prometheus,
    ):
        groups, rules = _measured(prometheus)
        series = prometheus.value('count({__name__=~"pgwatch_sessions_.+"})') or 0
        alerts = prometheus.value('count(ALERTS{alertstate="firing"})') or 0
    title = (
        f"rules: {_SERVERS} servers of {_CLIENTS} clients, {series:,.0f} series, {alerts:.0f} alerts; ms an evaluation"
    )
    yield table(title, ["group", "least", "median"], _rows(groups))
    yield table("rules: the dearest", ["rule", "least", "median"], sorted(_rows(rules), key=lambda row: -row[1])[:8])
    # The least is what it costs; the rest is what else the machine did.
    least = {name: min(taken) for name, taken in groups.items()}
    often = sum(taken for name, taken in least.items() if name not in _each_minute())
    yield f"all groups together, which happens once a minute at most: {sum(least.values()):.1f} ms\n"
    yield limits(
        Limit(what="the dearest group, least", measured=max(least.values()), bound=50, unit=" ms"),
        Limit(what="groups that alerts stand on, together, each 15 s, least", measured=often, bound=50, unit=" ms"),
    )


def _each_minute() -> set[str]:
    """Return the names of the groups with an interval of their own."""
    return {group["name"] for file in RULE_FILES for group in load_yaml(file)["groups"] if "interval" in group}


def _rows(costs: Costs) -> list[tuple[str, float, float]]:
    return [(name, min(taken), median(taken)) for name, taken in costs.items()]


def _configuration(address: str, pages: Mapping[str, bytes], rule_files: Sequence[str]) -> dict[str, Any]:
    targets = [
        {"targets": [address], "labels": {"__metrics_path__": path, "instance": f"daemon{path}:9488"}} for path in pages
    ]
    return {
        "global": {"scrape_interval": "10s", "evaluation_interval": _EVALUATION_INTERVAL},
        "rule_files": rule_files,
        "scrape_configs": [{"job_name": "pgwatch-sessions", "static_configs": targets}],
    }


def _measured(prometheus: Prometheus) -> tuple[Costs, Costs]:
    """Return the costs of groups and of rules, once the ranges are full."""
    groups: Costs = {}
    rules: Costs = {}
    for turn in range(_COUNTED):
        _until_evaluated(prometheus, _EVALUATIONS + turn)
        for name, seconds in _of_groups(prometheus, _LAST).items():
            groups.setdefault(name, []).append(1000 * seconds)
        for group in prometheus.groups():
            for rule in group["rules"]:
                name = f"{rule['name']} {rule.get('labels', {}).get('severity', '')}".strip()
                rules.setdefault(name, []).append(1000 * rule["evaluationTime"])
    return groups, rules


def _until_evaluated(prometheus: Prometheus, times: int) -> None:
    until(lambda: min(_of_groups(prometheus, _DONE).values(), default=0) >= times, within=180)


def _of_groups(prometheus: Prometheus, metric: str) -> dict[str, float]:
    """Return the values of one of its own metrics by the group's name."""
    text = prometheus.http.get("/metrics").raise_for_status().text
    return {
        sample.labels["rule_group"].rpartition(";")[2]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric
    }
