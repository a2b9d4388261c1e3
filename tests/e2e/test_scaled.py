import json
import re
from pathlib import Path

from tests.alerts.rules import needs_amtool, needs_promtool, rules, run_tool
from tests.e2e import scaled

_NUMBER = re.compile(r"(?<![\w.:\[\"])\d+(?:\.\d+)?(?![\w.:])")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
#: Numbers of the rules that are no times: states, shares, sessions, transactions.
NO_TIMES = {"0", "1", "0.8", "0.9", "10", "1000000", "100000000"}


def test_every_number_of_the_rules_is_scaled_or_is_no_time() -> None:
    """A new threshold that is a time is one in the end-to-end test as well."""
    for rule in rules():
        numbers = set(_NUMBER.findall(scaled.SECONDS.sub("", _QUOTED.sub("", rule.expr))))
        assert numbers <= NO_TIMES, f"{rule.name}: put these into SECONDS of scaled.py, or here"


def test_times_are_scaled_and_nothing_else() -> None:
    """Keys that are times, ranges and seconds in PromQL; neither names nor shares."""
    assert scaled.shorter("15s") == "250ms"
    assert scaled.shorter("1h") == "60000ms"
    assert scaled.in_a_hurry("a:rate10m > 0.9 and rate(b[10m]) < 3600") == "a:rate10m > 0.9 and rate(b[10000ms]) < 60"
    seconds = {match["seconds"] for rule in rules() for match in scaled.SECONDS.finditer(rule.expr)}
    assert seconds == {"86400", "3600", "1800", "900", "300"}


@needs_promtool
def test_promtool_accepts_what_is_shipped_and_what_is_scaled(tmp_path: Path) -> None:
    """The rules are as many before and after."""
    shipped = run_tool("promtool", "check", "config", scaled.PROMETHEUS)
    assert shipped.returncode == 0, shipped.stdout + shipped.stderr
    (tmp_path / "rules").mkdir()
    scaled.write_rules(tmp_path / "rules")
    configuration = scaled.prometheus(rules=tmp_path / "rules", alertmanager="127.0.0.1:1", daemons=["127.0.0.1:2"])
    (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))
    checked = run_tool("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    found = re.compile(r"SUCCESS: (\d+) rules found")
    assert found.findall(shipped.stdout) == found.findall(checked.stdout) != []


@needs_amtool
def test_amtool_accepts_what_is_shipped_and_what_is_scaled(tmp_path: Path) -> None:
    """Before and after."""
    shipped = run_tool("amtool", "check-config", scaled.ALERTMANAGER)
    assert shipped.returncode == 0, shipped.stdout + shipped.stderr
    (tmp_path / "alertmanager.yml").write_text(json.dumps(scaled.alertmanager(webhook="http://127.0.0.1:1/")))
    checked = run_tool("amtool", "check-config", tmp_path / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
