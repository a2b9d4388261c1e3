"""The shipped configurations, with every time divided by one factor and every address replaced; all else as it is.

A minute passes in a second: the daemon's own times, those of Prometheus and Alertmanager, the ranges in PromQL, and
the numbers in PromQL that are seconds.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgwatch_sessions.core.judging.policy import Policy
from tests.alerts.rules import ROOT, RULE_FILES, load_yaml

FACTOR = 60
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
#: Where the shipped Alertmanager sends everything.
WEBHOOK = "http://127.0.0.1:9095/"

#: The keys of YAML files whose values are times.
_TIMES = {"scrape_interval", "evaluation_interval", "interval", "for", "keep_firing_for", "group_wait",
          "group_interval", "repeat_interval"}  # fmt: skip
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_RANGE = re.compile(r"\[(\d+(?:ms|[smhd]))\]")
#: The numbers of the rules' PromQL that are seconds, with what stands before them.
SECONDS = re.compile(r"(?P<before>> time\(\) - |[<>] )(?P<seconds>86400|3600|1800|900|300)\b")

#: What Prometheus has no file for: how long it remembers a value, and after which time it says again that one fires.
FLAGS = (f"--query.lookback-delta={5 * 60 // FACTOR}s", f"--rules.alert.resend-delay={60 // FACTOR}s")

_POLICY = Policy()
#: The daemon's defaults. Its timeout is left long: a server that hangs is to be seen as one that does.
DAEMON = {
    "INTERVAL": f"{10_000 // FACTOR}ms",
    "HOLD_LIMIT": f"{_POLICY.hold_limit / FACTOR:g}s",
    "GROWTH_WINDOW": f"{_POLICY.growth_window / FACTOR:g}s",
    "HORIZON": f"{_POLICY.horizon / FACTOR:g}s",
    "TIMEOUT": "20s",
}


def write_rules(folder: Path) -> None:
    """Write each rule file, scaled, under its own name."""
    for file in RULE_FILES:
        (folder / file.name).write_text(json.dumps(_scaled(load_yaml(file))))  # JSON is YAML


def prometheus(*, rules: Path, alertmanager: str, daemons: Sequence[str]) -> Mapping[str, Any]:
    """Return the configuration of Prometheus; addresses are host:port."""
    configuration = _scaled(load_yaml(PROMETHEUS))
    configuration["rule_files"] = [f"{rules}/*.yml"]
    [receiver] = configuration["alerting"]["alertmanagers"]
    receiver["static_configs"] = [{"targets": [alertmanager]}]
    [job] = configuration["scrape_configs"]
    job["static_configs"] = [{"targets": list(daemons)}]
    return dict(configuration)


def alertmanager(*, webhook: str) -> Mapping[str, Any]:
    """Return the configuration of Alertmanager, which sends to the paths of this address."""
    configuration = _scaled(load_yaml(ALERTMANAGER))
    for receiver in configuration["receivers"]:
        for hook in receiver["webhook_configs"]:
            assert hook["url"].startswith(WEBHOOK)
            hook["url"] = hook["url"].replace(WEBHOOK, webhook)
    return dict(configuration)


def _scaled(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _scaled(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_scaled(each) for each in value]
    if not isinstance(value, str):
        return value
    if key in _TIMES:
        return shorter(value)
    return in_a_hurry(value)


def in_a_hurry(promql: str) -> str:
    """Divide the ranges and the seconds in PromQL, or in a template that asks for some."""
    ranges = _RANGE.sub(lambda match: f"[{shorter(match[1])}]", promql)
    return SECONDS.sub(lambda match: f"{match['before']}{int(match['seconds']) / FACTOR:g}", ranges)


def shorter(duration: str) -> str:
    """Divide a time as Prometheus writes it."""
    number, unit = re.fullmatch(r"(\d+)(ms|[smhd])", duration).groups()  # type: ignore[union-attr]  # it is one
    return f"{round(int(number) * _UNITS[unit] * 1000 / FACTOR)}ms"
