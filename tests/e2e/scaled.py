"""The shipped configurations with all times divided by 60 and all addresses replaced; nothing else changes.

A minute becomes a second. This applies to the daemon's settings, the times of Prometheus and Alertmanager, the ranges
in PromQL, and the numbers in PromQL that are seconds.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgwatch_sessions.core.judging.policy import Policy
from tests.support.alert_rules import ROOT, RULE_FILES, load_yaml

FACTOR = 60
PROMETHEUS = ROOT / "deploy/prometheus/prometheus.yml"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
#: The address to which the shipped Alertmanager configuration sends all notifications.
WEBHOOK = "http://127.0.0.1:9095/"

#: YAML keys whose values are durations.
_TIMES = {"scrape_interval", "evaluation_interval", "interval", "for", "keep_firing_for", "group_wait",
          "group_interval", "repeat_interval"}  # fmt: skip
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_RANGE = re.compile(r"\[(\d+(?:ms|[smhd]))\]")
#: Numbers in the rules' PromQL that are seconds, with the operator before them.
SECONDS = re.compile(r"(?P<before>> time\(\) - |[<>] )(?P<seconds>86400|3600|1800|900|300)\b")

#: Times that are flags of Prometheus: how long a sample stays valid, and how often firing alerts are sent again.
FLAGS = (f"--query.lookback-delta={5 * 60 // FACTOR}s", f"--rules.alert.resend-delay={60 // FACTOR}s")

_POLICY = Policy()
#: The daemon's defaults, scaled. The time-out is longer, so that polls of a frozen server hang instead of failing.
DAEMON = {
    "INTERVAL": f"{10_000 // FACTOR}ms",
    "HOLD_LIMIT": f"{_POLICY.hold_limit / FACTOR:g}s",
    "GROWTH_WINDOW": f"{_POLICY.growth_window / FACTOR:g}s",
    "HORIZON": f"{_POLICY.horizon / FACTOR:g}s",
    "TIMEOUT": "20s",
}


def write_rules(folder: Path) -> None:
    """Write the scaled rule files under their own names."""
    for file in RULE_FILES:
        (folder / file.name).write_text(json.dumps(_scale(load_yaml(file))))  # JSON is YAML


def prometheus(*, rules: Path, alertmanager: str, daemons: Sequence[str], applications: Path) -> Mapping[str, Any]:
    """Return the scaled configuration of Prometheus. Addresses are host:port, those of `applications` in a file."""
    configuration = _scale(load_yaml(PROMETHEUS))
    configuration["rule_files"] = [f"{rules}/*.yml"]
    [receiver] = configuration["alerting"]["alertmanagers"]
    receiver["static_configs"] = [{"targets": [alertmanager]}]
    watching, counting = configuration["scrape_configs"]
    watching["static_configs"] = [{"targets": list(daemons)}]
    counting["file_sd_configs"] = [{"files": [str(applications)]}]
    return dict(configuration)


def alertmanager(*, webhook: str) -> Mapping[str, Any]:
    """Return the scaled configuration of Alertmanager, which sends to paths below `webhook`."""
    configuration = _scale(load_yaml(ALERTMANAGER))
    for receiver in configuration["receivers"]:
        for hook in receiver["webhook_configs"]:
            assert hook["url"].startswith(WEBHOOK)
            hook["url"] = hook["url"].replace(WEBHOOK, webhook)
    return dict(configuration)


def _scale(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _scale(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_scale(each) for each in value]
    if not isinstance(value, str):
        return value
    if key in _TIMES:
        return scale_duration(value)
    return scale_promql(value)


def scale_promql(promql: str) -> str:
    """Divide the ranges and the seconds in PromQL, or in a template that contains PromQL."""
    ranges = _RANGE.sub(lambda match: f"[{scale_duration(match[1])}]", promql)
    return SECONDS.sub(lambda match: f"{match['before']}{int(match['seconds']) / FACTOR:g}", ranges)


def scale_duration(duration: str) -> str:
    """Divide a duration in Prometheus's format, such as 15s or 1h."""
    number, unit = re.fullmatch(r"(\d+)(ms|[smhd])", duration).groups()  # type: ignore[union-attr]  # it is one
    return f"{round(int(number) * _UNITS[unit] * 1000 / FACTOR)}ms"
