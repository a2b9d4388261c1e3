import re
from pathlib import Path

import pytest

from pgwatch_sessions.assets.catalogue import read_runbook
from pgwatch_sessions.metrics.daemon_metrics import DAEMON_METRICS
from pgwatch_sessions.metrics.table import METRICS, PREFIX
from pgwatch_sessions.wording.runbooks import SERVED, published
from tests.support.alert_rules import (
    ALERTS,
    RULE_FILES,
    TEST_FILES,
    Rule,
    load_yaml,
    metrics_in,
    metrics_in_template,
    needs_promtool,
    rules,
    run_tool,
)
from tests.support.pool_metrics import POOL_METRICS
from tests.support.rule_mutants import failing_alone, mutants, survivors

DAEMON_LABELS = "instance, job, pod, container, endpoint, service, node"
#: `job` may be the only name of an application.
PROCESS_LABELS = DAEMON_LABELS.replace("job, ", "")
RULES = tuple(rules())
ALERT_RULES = tuple(rule for rule in RULES if rule.is_alert)


@needs_promtool
def test_promtool_accepts_every_rule() -> None:
    """Promtool checks syntax and names, and finds no duplicate rules."""
    checked = run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_the_rules_do_what_their_tests_say(file: Path) -> None:
    """Every file in alerts/tests passes."""
    result = run_tool("promtool", "test", "rules", file)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("alert", sorted({rule.name for rule in ALERT_RULES}))
def test_every_alert_is_tested_firing_and_silent(alert: str) -> None:
    """At least one test checks the full text of each severity of an alert, and one checks that the alert is silent."""
    checks = [
        check
        for test in load_yaml(ALERTS / "tests" / f"{alert}.yml")["tests"]
        for check in test.get("alert_rule_test", ())
        if check["alertname"] == alert
    ]
    fired = {each["exp_labels"]["severity"] for check in checks for each in check.get("exp_alerts") or ()}
    assert fired == {rule.content["labels"]["severity"] for rule in ALERT_RULES if rule.name == alert}
    assert any(not check.get("exp_alerts") for check in checks)


def test_every_recorded_series_is_tested() -> None:
    """Series for dashboards have an expression test; series that an alert reads are tested through the alert."""
    tested = "\n".join(
        check["expr"]
        for file in TEST_FILES
        for test in load_yaml(file)["tests"]
        for check in test.get("promql_expr_test", ())
    )
    read_by_rules = {metric for rule in RULES for metric in metrics_in(rule.expr)}
    untested = {rule.name for rule in RULES if not rule.is_alert and rule.name not in metrics_in(tested)}
    assert {name for name in untested if name not in read_by_rules} <= {
        "site:pgwatch_sessions_leak_since:timestamp_seconds"
    }
    assert not {rule.name for rule in RULES if rule.file.name == "recording_rules.yml"} & untested


@needs_promtool
def test_each_test_of_the_rules_passes_without_the_others(tmp_path: Path) -> None:
    """Each test passes with only the rules that it needs. The next test runs them like this."""
    assert [str(test) for test in failing_alone(tmp_path / "unchanged")] == []


@needs_promtool
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.name))
def test_no_rule_can_be_changed_unnoticed(rule: Rule, tmp_path: Path) -> None:
    """If one metric, threshold, duration, label or condition of a rule is changed, a test of the rules fails."""
    candidates = [mutant for mutant in mutants() if mutant.rule == rule]
    assert [str(mutant) for mutant in survivors(tmp_path, rule, candidates)] == []


def test_rules_are_changed_in_many_ways() -> None:
    """With few changes, the test above would show little."""
    assert len(tuple(mutants())) > 6 * len(RULES)


def test_rules_read_metrics_that_exist() -> None:
    """Every metric that a rule reads is exposed by the daemon or by applications, or recorded by another rule."""
    recorded = {rule.name for rule in RULES if not rule.is_alert}
    names = {spec.name for spec in METRICS} | {"build_info"}
    for spec in DAEMON_METRICS:
        names |= {f"{spec.name}_sum", f"{spec.name}_count"} if spec.kind == "histogram" else {spec.name}
    exposed = {f"{PREFIX}{name}" for name in names} | POOL_METRICS
    for rule in RULES:
        metrics = metrics_in(rule.expr).union(*map(metrics_in_template, rule.content.get("annotations", {}).values()))
        assert metrics, rule.name
        assert metrics <= recorded | exposed, rule.name


def test_every_alert_has_a_severity_a_text_and_a_runbook() -> None:
    """The severity is `warning` or `critical`; the runbook exists and has the alert's name."""
    for rule in ALERT_RULES:
        assert rule.content["labels"].keys() == {"severity"}
        assert rule.content["labels"]["severity"] in {"warning", "critical"}
        annotations = rule.content["annotations"]
        assert annotations.keys() - {"page_url"} == {"summary", "description", "runbook_url"}
        assert not re.search(r"%[^+]?q", "".join(annotations.values())), (
            "use %+q: PromQL does not accept all that %q writes"
        )
        assert f"{SERVED}{rule.name} {{{{- else }}}}" in annotations["runbook_url"]
        assert published(f"{SERVED}{rule.name}") in annotations["runbook_url"]
        assert read_runbook(rule.name).startswith(f"# {rule.name}\n")


def test_every_threshold_has_its_reason_above_it() -> None:
    """Each rule whose expression has a comparison or `absent` has a comment."""
    blocks = re.split(r"\n\n(?=      [#-])", (ALERTS / "alert_rules.yml").read_text())
    comparing = [block for block in blocks if re.search(r"expr:(?:.|\n {10})*(?:[<>=]=? \d|absent)", block)]
    assert len(comparing) > 15
    for block in comparing:
        assert block.startswith("      # "), block


def test_every_rule_merges_daemons_by_the_same_labels() -> None:
    """If a label that identifies a daemon is missing in one `without`, a server with two daemons counts twice there.

    If one of a process is missing, the alert on a pool does not add up the processes of its application.
    """
    for rule in RULES:
        for labels in re.findall(r"\b(?:max|min|group) without \(([^)]*)\)", rule.expr):
            if labels != "version":
                assert re.sub(", (pgwatch_sessions_client_diagnosis|state)$", "", labels) == DAEMON_LABELS, rule.name
        assert "db_client_" not in rule.expr or f"sum without ({PROCESS_LABELS}" in rule.expr, rule.name
        for labels in re.findall(r"\bsum without \((instance[^)]*)\)", f"{rule.content}"):
            assert labels.removesuffix(", db_client_connection_state") == PROCESS_LABELS, rule.name
        assert not re.search(r"\bby \((?!state\))", rule.expr), f"{rule.name}: `by` drops labels that others add"
