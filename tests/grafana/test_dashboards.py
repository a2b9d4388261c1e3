import json
import re
import shutil
import subprocess
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.frame import PAGE, RUNBOOKS
from grafana.generate import DASHBOARDS, encode
from grafana.queries import POOL_PREFIX, VERDICT_CODES
from pgwatch_sessions.assets.catalogue import runbook_names
from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.metrics.daemon_metrics import DAEMON_METRICS
from pgwatch_sessions.metrics.table import METRICS, PREFIX
from pgwatch_sessions.wording.runbooks import SERVED
from tests.support.dashboard_expressions import (
    FOLDER,
    VARIABLE,
    annotation_queries,
    expressions,
    fill_variables,
    load_dashboards,
    panels_of,
    variable_queries,
)
from tests.support.pool_metrics import POOL_METRICS, POOL_SERIES

every_dashboard = pytest.mark.parametrize("name", DASHBOARDS)

#: Variables that Grafana itself defines.
BUILT_IN = {"__rate_interval", "__range", "__interval", "__url_time_range", "__data", "__field"}
MANDATORY = {"datasource", "server", "database", "application"}
_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}
_KINDS = {spec.name: spec.kind for spec in METRICS} | {spec.name: spec.kind for spec in DAEMON_METRICS}
EXPOSED = {f"{PREFIX}{name}{suffix}" for name, kind in _KINDS.items() for suffix in _SUFFIXES.get(kind, ("",))} | {
    f"{PREFIX}build_info"
}
#: Names that break a query if they are not escaped, one for each character that is special in a string or pattern.
AWKWARD = (
    "a.b",
    "two\nlines",
    "é😀",
    'say "hi"',
    "it's",
    "back\\slash",
    "{{ brace }}",
    "(none)",
    "a|b",
    "$1 ^x$",
    "[[x]] ${y}",
    "50%/day",
)


def test_every_generated_dashboard_is_checked_in_and_no_other() -> None:
    """The folder has exactly the dashboards that the code generates."""
    assert set(load_dashboards()) == set(DASHBOARDS)


@every_dashboard
def test_the_checked_in_dashboard_is_what_the_code_generates(name: str) -> None:
    """If this fails, run `make dashboards`."""
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == encode(DASHBOARDS[name]())


@every_dashboard
def test_a_dashboard_has_the_schema_of_the_grafana_sdk(name: str) -> None:
    """The SDK reads and writes the dashboard without loss, except for annotation fields that it does not know."""
    register_default_plugins()
    dashboard = load_dashboards()[name]
    again = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    for annotation in dashboard["annotations"]["list"]:
        for unknown_field in ("titleFormat", "textFormat", "tagKeys"):
            assert annotation.pop(unknown_field)
    assert again == dashboard


@every_dashboard
def test_a_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    """Every panel has a title, a description, a unit, and a unique id for links and alerts."""
    dashboard = load_dashboards()[name]
    ids = Counter(panel["id"] for panel in dashboard["panels"])
    assert min(ids) == 1
    assert set(ids.values()) == {1}
    for panel in panels_of(dashboard):
        assert panel["title"]
        assert len(panel["description"]) > 30, panel["title"]
        if panel["type"] != "text":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
            assert panel["targets"], panel["title"]


@every_dashboard
def test_every_query_uses_the_selected_data_source(name: str) -> None:
    """Panels, targets, variables and annotations do, so a copied panel or one opened in Explore works as well."""
    dashboard = load_dashboards()[name]
    querying = [panel for panel in panels_of(dashboard) if panel["type"] != "text"]
    querying += [target for panel in querying for target in panel["targets"]]
    querying += [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    querying += dashboard["annotations"]["list"]
    assert {json.dumps(each.get("datasource")) for each in querying} == {
        json.dumps({"type": "prometheus", "uid": "${datasource}"})
    }


def test_tables_of_findings_link_to_the_page_and_the_runbook() -> None:
    """Every linked runbook is one that the daemon serves, and by default the links lead to a daemon."""
    leak = "${runbooks:raw}/DatabaseConnectionLeak"
    for name, title in (("fleet", "Who leaks"), ("leak", "Findings")):
        [panel] = [panel for panel in load_dashboards()[name]["panels"] if panel["title"] == title]
        sites = [
            each["properties"] for each in panel["fieldConfig"]["overrides"] if each["matcher"]["options"] == "Site"
        ]
        links = [each["value"] for properties in sites for each in properties if each["id"] == "links"]
        assert [link["url"] for each in links for link in each] == ["${page:raw}/", leak]
    text = json.dumps(load_dashboards())
    assert set(re.findall(r"\$\{runbooks:raw\}/([\w.]+)", text)) - set(runbook_names()) == set()
    assert f"{PAGE}{SERVED.rstrip('/')}" == RUNBOOKS


@every_dashboard
def test_panels_fill_the_grid_and_do_not_overlap(name: str) -> None:
    """No panel overlaps another or exceeds the grid of 24 columns."""
    places = [panel["gridPos"] for panel in load_dashboards()[name]["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        side_by_side = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert side_by_side or below, (one, other)


@every_dashboard
def test_every_used_variable_is_defined_and_every_defined_variable_is_used(name: str) -> None:
    """The test covers queries, links, texts, annotations and other variables."""
    dashboard = load_dashboards()[name]
    defined = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert set(defined) >= MANDATORY
    used = {match["braced"] or match["bare"] or match["old"] for match in VARIABLE.finditer(json.dumps(dashboard))}
    assert used - BUILT_IN - {"__all"} <= set(defined)
    assert set(defined) <= used


@every_dashboard
def test_links_between_dashboards_use_existing_dashboards_and_variables(name: str) -> None:
    """Each `/d/uid?var-x=` names one of the dashboards and one of its variables."""
    by_uid = {dashboard["uid"]: dashboard for dashboard in load_dashboards().values()}
    urls = re.findall(r"/d/[^\"]+", json.dumps(load_dashboards()[name]))
    assert urls
    for url in urls:
        target, _, query = url.removeprefix("/d/").partition("?")
        variables = {variable["name"] for variable in by_uid[target]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= variables
        assert "${datasource:queryparam}" in query
        assert "${__url_time_range}" in query


def test_every_queried_metric_exists() -> None:
    """If a metric is renamed, this fails instead of leaving a panel empty."""
    for expression in expressions():
        metrics = set(re.findall(rf"\b(?:{PREFIX}|{POOL_PREFIX})\w+(?=\{{)", expression.text))
        assert metrics, expression.place
        assert metrics <= EXPOSED | POOL_METRICS, expression.place


def test_every_variable_lists_a_label_that_its_metric_has() -> None:
    """The labels by which a variable is filtered exist, too. Otherwise the variable would have no values."""
    labels = {f"{PREFIX}{spec.name}": {"server", *spec.labels} for spec in METRICS}
    queries = list(variable_queries())
    assert {each.dashboard for each in queries} == set(DASHBOARDS)
    for query in queries:
        metric, _, matchers = query.text.partition("{")
        assert metric in EXPOSED, query.place
        assert {query.name, *re.findall(r"(\w+)=~`", matchers)} <= labels[metric], query.place


def test_every_metric_is_shown_in_a_panel() -> None:
    """No metric is exposed without being shown, but for those of the configuration and of sources of servers."""
    shown = " ".join(expression.text for expression in expressions())
    names = {name for name in _KINDS if not name.startswith(("config_", "discover"))}
    assert {name for name in names if f"{PREFIX}{name}" not in shown} == set()
    assert {name for name, series in POOL_SERIES.items() if not any(f"{each}{{" in shown for each in series)} == set()


def test_no_session_counts_twice_when_two_daemons_watch_a_server() -> None:
    """Every selector is directly inside `max by` or `min by` over the metric's own labels, which merges the daemons."""
    of_server = rf"{PREFIX}(?!build_info|loop_lag_|http_)\w+\{{"  # these are about the daemon, not about a server
    selector = re.compile(of_server)
    merged = re.compile(
        rf"(?:max|min) by \([\w, ]*\bserver\b[\w, ]*\) \((?:60 \* )?(?:(?:rate|increase)\()?{of_server}"
    )
    for expression in expressions():
        assert len(selector.findall(expression.text)) == len(merged.findall(expression.text)), expression.place


def test_pools_are_those_of_the_application_and_are_added_up_over_its_processes() -> None:
    """Every selector of a pool's metric is directly inside `sum by` the pool, and filtered by the application."""
    selector = re.compile(rf"{POOL_PREFIX}\w+\{{")
    added = re.compile(
        rf"sum by \({POOL_PREFIX}pool_name(?:, \w+)?\) \((?:60 \* )?(?:rate\()?"
        rf"{POOL_PREFIX}\w+\{{application=~`\$\{{application:regex\}}`[,}}]"
    )
    found = [each for each in expressions() if POOL_PREFIX in each.text]
    assert {each.dashboard for each in found} == {"application"}
    for expression in found:
        assert len(selector.findall(expression.text)) == len(added.findall(expression.text)), expression.place


def test_no_aggregation_keeps_labels_that_identify_a_daemon() -> None:
    """No `by (…)` contains a label that the alert rules remove with `without (…)`."""
    rules = (FOLDER.parents[1] / "alerts" / "alert_rules.yml").read_text(encoding="utf-8")
    lists = re.findall(r"max without \(([\w, ]+)\)", rules)
    daemon_labels = set.intersection(*(set(labels.split(", ")) for labels in lists))
    assert daemon_labels >= {"instance", "job", "pod", "container", "endpoint", "service", "node"}
    for expression in expressions():
        kept = {label for labels in re.findall(r"\bby \(([^)]*)\)", expression.text) for label in labels.split(", ")}
        assert kept & daemon_labels == set(), expression.place


def test_every_verdict_has_a_code_and_a_mapping_to_its_name() -> None:
    """A new verdict must not appear as a bare number."""
    assert set(VERDICT_CODES) == set(Verdict)
    for name, dashboard in load_dashboards().items():
        mappings = re.findall(r'"text": "(\w+)", "color"', json.dumps(dashboard))
        assert set(Verdict) <= set(mappings), name


@pytest.mark.parametrize("names", [AWKWARD[:1], AWKWARD, None], ids=["one", "several", "all"])
def test_every_query_is_valid_promql_for_any_names(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    """Quotes, braces, backslashes, template syntax and regular expression characters in names break no query."""
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is not installed: apt install prometheus")
    values = dict.fromkeys(("server", "database", "user", "application"), names)
    queries = [
        fill_variables(each.text, values, window="1m")
        for each in (*expressions(), *annotation_queries(), *variable_queries())
    ]
    rules = [{"record": f"test:query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    document = {"groups": [{"name": "queries", "rules": rules}]}
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")  # JSON is YAML but for surrogates
    checked = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


@every_dashboard
def test_alerts_that_the_annotations_name_exist(name: str) -> None:
    """The pattern matches all shipped alerts on databases, and no alert on the monitoring itself."""
    [annotation] = load_dashboards()[name]["annotations"]["list"]
    pattern = re.search(r'alertname=~"([^"]+)"', annotation["expr"])
    assert pattern
    rules = yaml.safe_load((FOLDER.parents[1] / "alerts" / "alert_rules.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    matched = {alert for alert in alerts if re.fullmatch(pattern[1], alert)}
    assert "DatabaseConnectionLeak" in matched
    assert {alert for alert in alerts if not alert.startswith("Pgwatch")} == matched


def test_provisioning_files_define_the_dashboards_and_the_data_source() -> None:
    """Grafana reads them at its start. The scrape interval is Prometheus's."""
    folder = FOLDER.with_name("provisioning")
    [provider] = yaml.safe_load((folder / "dashboards" / "pgwatch-sessions.yml").read_text())["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    prometheus = yaml.safe_load((FOLDER.parents[1] / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
