import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pgwatch_sessions.metrics.table import METRICS, PREFIX
from tests.alerts.mutants import failing_alone, mutants, survivors
from tests.alerts.rules import (
    ALERTS,
    RULE_FILES,
    TEST_FILES,
    Rule,
    loaded,
    metrics_in,
    metrics_in_template,
    needs_promtool,
    ran,
    rules,
)

#: Replaced once, by whoever puts the runbooks where people can read them.
RUNBOOKS = "https://runbooks.example/pgwatch-sessions/"
WATCHERS = "instance, job, pod, container, endpoint, service, node"
ALL = tuple(rules())
ALERT_RULES = tuple(rule for rule in ALL if rule.is_alert)


@needs_promtool
def test_promtool_accepts_every_rule() -> None:
    """Syntax, names, and no rule twice."""
    checked = ran("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_the_rules_do_what_their_tests_say(file: Path) -> None:
    """Every file in alerts/tests."""
    tested = ran("promtool", "test", "rules", file)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", sorted({rule.name for rule in ALERT_RULES}))
def test_every_alert_is_tested_firing_and_silent(alert: str) -> None:
    """Each severity of it fires with all of its text in one test, and it is silent in another."""
    checks = [
        check
        for test in loaded(ALERTS / "tests" / f"{alert}.yml")["tests"]
        for check in test.get("alert_rule_test", ())
        if check["alertname"] == alert
    ]
    fired = {each["exp_labels"]["severity"] for check in checks for each in check.get("exp_alerts") or ()}
    assert fired == {rule.content["labels"]["severity"] for rule in ALERT_RULES if rule.name == alert}
    assert any(not check.get("exp_alerts") for check in checks)


def test_every_recorded_series_is_tested() -> None:
    """What is recorded for dashboards has an expression test; what an alert stands on is tested through the alert."""
    tested = "\n".join(
        check["expr"]
        for file in TEST_FILES
        for test in loaded(file)["tests"]
        for check in test.get("promql_expr_test", ())
    )
    read_by_rules = {metric for rule in ALL for metric in metrics_in(rule.expr)}
    untested = {rule.name for rule in ALL if not rule.is_alert and rule.name not in metrics_in(tested)}
    assert {name for name in untested if name not in read_by_rules} <= {
        "site:pgwatch_sessions_leak_since:timestamp_seconds"
    }
    assert not {rule.name for rule in ALL if rule.file.name == "recording_rules.yml"} & untested


@needs_promtool
def test_each_test_of_the_rules_passes_without_the_others(tmp_path: Path) -> None:
    """With no more rules than it is about; the next test runs them so."""
    assert [str(test) for test in failing_alone(tmp_path / "right")] == []


@needs_promtool
@pytest.mark.parametrize("rule", ALL, ids=lambda rule: str(rule.name))
def test_no_rule_can_be_changed_unnoticed(rule: Rule, tmp_path: Path) -> None:
    """With one metric, threshold, time, label or condition changed in any one rule, a test of them fails."""
    wrong = [mutant for mutant in mutants() if mutant.rule == rule]
    assert [str(mutant) for mutant in survivors(tmp_path, rule, wrong)] == []


def test_rules_are_changed_in_many_ways() -> None:
    """Else the test above shows little."""
    assert len(tuple(mutants())) > 6 * len(ALL)


def test_rules_read_metrics_that_exist() -> None:
    """Each is one of ours, or recorded by another rule."""
    recorded = {rule.name for rule in ALL if not rule.is_alert}
    ours = {f"{PREFIX}{spec.name}" for spec in METRICS} | {f"{PREFIX}build_info"}
    for rule in ALL:
        asked = metrics_in(rule.expr).union(*map(metrics_in_template, rule.content.get("annotations", {}).values()))
        assert asked, rule.name
        assert asked <= recorded | ours, rule.name


def test_every_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on() -> None:
    """The severity is one that is routed; the runbook is a page that exists and is called like the alert."""
    for rule in ALERT_RULES:
        assert rule.content["labels"].keys() == {"severity"}
        assert rule.content["labels"]["severity"] in {"warning", "critical"}
        annotations = rule.content["annotations"]
        assert annotations.keys() - {"page_url"} == {"summary", "description", "runbook_url"}
        assert not re.search(r"%[^+]?q", "".join(annotations.values())), "PromQL does not read every %q"
        assert annotations["runbook_url"] == f"{RUNBOOKS}{rule.name}.md"
        page = ALERTS / "runbooks" / f"{rule.name}.md"
        assert page.read_text().startswith(f"# {rule.name}\n")


@needs_promtool
def test_the_page_of_every_alert_can_be_put_elsewhere_in_one_line(tmp_path: Path) -> None:
    """The `sed` of docs/web.md, for TLS or an address of its own for metrics."""
    [line] = re.findall(r"`(sed -i [^`]+)`", (ALERTS.parent / "docs/web.md").read_text())
    rules_file = tmp_path / "alert_rules.yml"
    shutil.copy(ALERTS / "alert_rules.yml", rules_file)
    subprocess.run(shlex.split(line), cwd=tmp_path, check=True)
    assert ran("promtool", "check", "rules", rules_file).returncode == 0
    pages = [
        rule["annotations"]["page_url"]
        for group in loaded(rules_file)["groups"]
        for rule in group["rules"]
        if "page_url" in rule.get("annotations", {})
    ]
    assert len(pages) == sum("page_url" in rule.content["annotations"] for rule in ALERT_RULES)
    assert all("https://db-monitor.example:9488/" in page and "http://" not in page for page in pages)


def test_every_threshold_has_its_reason_above_it() -> None:
    """A comment over each rule in whose expression something is compared or missed."""
    blocks = re.split(r"\n\n(?=      [#-])", (ALERTS / "alert_rules.yml").read_text())
    compared = [block for block in blocks if re.search(r"expr:(?:.|\n {10})*(?:[<>=]=? \d|absent)", block)]
    assert len(compared) > 15
    for block in compared:
        assert block.startswith("      # "), block


def test_daemons_are_put_together_by_the_same_labels_everywhere() -> None:
    """A label that tells daemons apart and is missing in one place would count a server twice there."""
    for rule in ALL:
        for labels in re.findall(r"\b(?:max|min|group) without \(([^)]*)\)", rule.expr):
            if labels != "version":
                assert re.sub(", (pgwatch_sessions_client_diagnosis|state)$", "", labels) == WATCHERS, rule.name
        assert not re.search(r"\bby \((?!state\))", rule.expr), f"{rule.name}: labels that others add are lost"
