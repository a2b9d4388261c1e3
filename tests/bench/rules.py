"""Cost of the alerting and recording rules for a fleet, as Prometheus itself measures it."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.fleet import serve_pages, server_metrics
from tests.bench.tables import Limit, limits, table
from tests.e2e.prometheus import PROGRAM, Prometheus, running_prometheus
from tests.support.alert_rules import RULE_FILES, load_yaml, write_without_intervals
from tests.support.waiting import until

_SERVERS, _CLIENTS, _SESSIONS = 50, 20, 10
#: Number of servers with a leaking client. The text of each alert runs queries, too.
_LEAKING = 5
#: Evaluations that fill the longest range of a recorded series (30 m at 15 s), and evaluations measured after that.
_EVALUATIONS, _COUNTED = 120, 30
#: Shorter than shipped, to fill that range in less time.
_EVALUATION_INTERVAL = "500ms"
_DONE, _LAST = "prometheus_rule_group_iterations_total", "prometheus_rule_group_last_duration_seconds"

#: Milliseconds of each measured evaluation, by group or rule.
Costs = dict[str, list[float]]


def bench() -> Iterator[str]:
    """Evaluate the rules until their ranges are full, then measure each group and the most expensive rules."""
    if PROGRAM is None:
        yield "rules: skipped, Prometheus is not installed: apt install prometheus\n"
        return
    healthy, leaking = (server_metrics("SERVER", clients=_CLIENTS, sessions=_SESSIONS, leaking=many) for many in (0, 1))
    pages = {
        f"/{number}": (leaking if number < _LEAKING else healthy).replace(b"SERVER", b"db-%d" % number)
        for number in range(_SERVERS)
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_pages(pages) as address,
        running_prometheus(_configuration(address, pages, write_without_intervals(Path(folder)))) as prometheus,
    ):
        groups, rules = _measure(prometheus)
        series = prometheus.value('count({__name__=~"pgwatch_sessions_.+"})') or 0
        alerts = prometheus.value('count(ALERTS{alertstate="firing"})') or 0
    title = (
        f"rules: {_SERVERS} servers of {_CLIENTS} clients, {series:,.0f} series, {alerts:.0f} alerts; ms per evaluation"
    )
    yield table(title, ["group", "least", "median"], _rows(groups))
    yield table(
        "rules: the most expensive", ["rule", "least", "median"], sorted(_rows(rules), key=lambda row: -row[1])[:8]
    )
    # The minimum is the real cost; the rest is other load on the machine.
    least = {name: min(taken) for name, taken in groups.items()}
    often = sum(taken for name, taken in least.items() if name not in _each_minute())
    yield f"all groups together, at most once a minute: {sum(least.values()):.1f} ms\n"
    yield limits(
        Limit(what="the most expensive group, least", measured=max(least.values()), bound=50, unit=" ms"),
        Limit(what="all groups that are evaluated every 15 s, least", measured=often, bound=50, unit=" ms"),
    )


def _each_minute() -> set[str]:
    """Return the names of the groups with their own interval."""
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


def _measure(prometheus: Prometheus) -> tuple[Costs, Costs]:
    """Return the costs of groups and of rules after the ranges are full."""
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
    """Return the values of one of Prometheus's own metrics by rule group."""
    text = prometheus.http.get("/metrics").raise_for_status().text
    return {
        sample.labels["rule_group"].rpartition(";")[2]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric
    }
