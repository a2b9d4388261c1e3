import json
import re
from pathlib import Path

from tests.e2e import scaled
from tests.support.alert_rules import needs_amtool, needs_promtool, rules, run_tool

_NUMBER = re.compile(r"(?<![\w.:\[\"])\d+(?:\.\d+)?(?![\w.:])")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
#: Numbers in the rules that are not durations to scale: states, shares, sessions, transactions, and lateness of 1 s.
NOT_DURATIONS = {"0", "0.1", "1", "0.8", "0.9", "10", "1000000", "100000000"}


def test_every_number_in_the_rules_is_scaled_or_is_not_a_duration() -> None:
    """A new threshold in seconds must be scaled for the end-to-end test."""
    for rule in rules():
        numbers = set(_NUMBER.findall(scaled.SECONDS.sub("", _QUOTED.sub("", rule.expr))))
        assert numbers <= NOT_DURATIONS, f"{rule.name}: add {numbers - NOT_DURATIONS} to SECONDS in scaled.py, or here"


def test_only_durations_are_scaled() -> None:
    """Durations, and ranges and seconds in PromQL are scaled; names and shares are not."""
    assert scaled.scale_duration("15s") == "250ms"
    assert scaled.scale_duration("1h") == "60000ms"
    assert scaled.scale_promql("a:rate10m > 0.9 and rate(b[10m]) < 3600") == "a:rate10m > 0.9 and rate(b[10000ms]) < 60"
    seconds = {match["seconds"] for rule in rules() for match in scaled.SECONDS.finditer(rule.expr)}
    assert seconds == {"86400", "3600", "1800", "900", "300"}


@needs_promtool
def test_promtool_accepts_the_shipped_and_the_scaled_configuration(tmp_path: Path) -> None:
    """Both have the same number of rules."""
    shipped = run_tool("promtool", "check", "config", scaled.PROMETHEUS)
    assert shipped.returncode == 0, shipped.stdout + shipped.stderr
    (tmp_path / "rules").mkdir()
    scaled.write_rules(tmp_path / "rules")
    configuration = scaled.prometheus(
        rules=tmp_path / "rules",
        alertmanager="127.0.0.1:1",
        daemons=["127.0.0.1:2"],
        applications=scaled.PROMETHEUS.with_name("applications.yml"),
    )
    (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))
    checked = run_tool("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rule_count = re.compile(r"SUCCESS: (\d+) rules found")
    assert rule_count.findall(shipped.stdout) == rule_count.findall(checked.stdout) != []


@needs_amtool
def test_amtool_accepts_the_shipped_and_the_scaled_configuration(tmp_path: Path) -> None:
    """Scaling changes only durations and addresses."""
    shipped = run_tool("amtool", "check-config", scaled.ALERTMANAGER)
    assert shipped.returncode == 0, shipped.stdout + shipped.stderr
    (tmp_path / "alertmanager.yml").write_text(json.dumps(scaled.alertmanager(webhook="http://127.0.0.1:1/")))
    checked = run_tool("amtool", "check-config", tmp_path / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
