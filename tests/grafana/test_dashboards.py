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

from grafana.frame import RUNBOOKS
from grafana.generate import DASHBOARDS, encoded
from grafana.queries import VERDICT_CODES
from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.metrics.table import METRICS, PREFIX
from tests.grafana.expressions import FOLDER, VARIABLE, annotations, choices, expressions, filled, loaded, panels_of

every_dashboard = pytest.mark.parametrize("name", DASHBOARDS)

#: What Grafana itself defines.
BUILT_IN = {"__rate_interval", "__range", "__interval", "__url_time_range", "__data", "__field"}
MANDATORY = {"datasource", "server", "database", "application"}
_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}
EXPOSED = {f"{PREFIX}{spec.name}{suffix}" for spec in METRICS for suffix in _SUFFIXES.get(spec.kind, ("",))}
#: Names that would break a query if they were not escaped, one each for what ends or changes a string or pattern.
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
    """The folder holds what the code makes."""
    assert set(loaded()) == set(DASHBOARDS)


@every_dashboard
def test_what_is_checked_in_is_what_the_code_generates(name: str) -> None:
    """`make dashboards` was run."""
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == encoded(DASHBOARDS[name]())


@every_dashboard
def test_a_dashboard_is_of_the_form_that_grafana_knows(name: str) -> None:
    """Read into the SDK's types and written again, nothing is lost but what the SDK has no type for."""
    register_default_plugins()
    dashboard = loaded()[name]
    again = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    for annotation in dashboard["annotations"]["list"]:
        for beyond_the_sdk in ("titleFormat", "textFormat", "tagKeys"):
            assert annotation.pop(beyond_the_sdk)
    assert again == dashboard


@every_dashboard
def test_a_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    """Title, a description of more than a few words, a unit; and ids that links and alerts can name."""
    dashboard = loaded()[name]
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
def test_every_query_names_the_chosen_data_source(name: str) -> None:
    """Panel, target, variable and annotation: a copied panel or one opened in Explore asks the same Prometheus."""
    dashboard = loaded()[name]
    asking = [panel for panel in panels_of(dashboard) if panel["type"] != "text"]
    asking += [target for panel in asking for target in panel["targets"]]
    asking += [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    asking += dashboard["annotations"]["list"]
    assert {json.dumps(each.get("datasource")) for each in asking} == {
        json.dumps({"type": "prometheus", "uid": "${datasource}"})
    }


def test_a_finding_leads_to_the_page_and_to_the_runbook() -> None:
    """From every table of findings; and what is linked to as a runbook is one, where the alerts say it is."""
    leak = "${runbooks:raw}/DatabaseConnectionLeak.md"
    for name, title in (("fleet", "Who leaks"), ("leak", "Findings")):
        [panel] = [panel for panel in loaded()[name]["panels"] if panel["title"] == title]
        sites = [
            each["properties"] for each in panel["fieldConfig"]["overrides"] if each["matcher"]["options"] == "Site"
        ]
        links = [each["value"] for properties in sites for each in properties if each["id"] == "links"]
        assert [link["url"] for each in links for link in each] == ["${page:raw}/", leak]
    text = json.dumps(loaded())
    runbooks = FOLDER.parents[1] / "alerts" / "runbooks"
    assert {
        page for page in re.findall(r"\$\{runbooks:raw\}/([\w.]+)", text) if not (runbooks / page).exists()
    } == set()
    assert f"runbook_url: {RUNBOOKS}/DatabaseConnectionLeak.md" in (runbooks.parent / "alert_rules.yml").read_text()


@every_dashboard
def test_panels_fill_the_grid_and_do_not_overlap(name: str) -> None:
    """No panel covers another or hangs over the edge."""
    places = [panel["gridPos"] for panel in loaded()[name]["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@every_dashboard
def test_every_variable_that_is_used_is_defined_and_used_if_defined(name: str) -> None:
    """In queries, links, texts, annotations and other variables."""
    dashboard = loaded()[name]
    defined = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert set(defined) >= MANDATORY
    used = {match["braced"] or match["bare"] or match["old"] for match in VARIABLE.finditer(json.dumps(dashboard))}
    assert used - BUILT_IN - {"__all"} <= set(defined)
    assert set(defined) <= used


@every_dashboard
def test_links_between_dashboards_lead_to_dashboards_and_variables_that_exist(name: str) -> None:
    """Each `/d/uid?var-x=` names a dashboard of ours and a variable of that one."""
    by_uid = {dashboard["uid"]: dashboard for dashboard in loaded().values()}
    urls = re.findall(r"/d/[^\"]+", json.dumps(loaded()[name]))
    assert urls
    for url in urls:
        target, _, query = url.removeprefix("/d/").partition("?")
        variables = {variable["name"] for variable in by_uid[target]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= variables
        assert "${datasource:queryparam}" in query
        assert "${__url_time_range}" in query


def test_every_metric_that_is_asked_for_exists() -> None:
    """A renamed metric empties no panel unnoticed; `ALERTS` is Prometheus' own."""
    for expression in expressions():
        asked = set(re.findall(rf"\b{PREFIX}\w+(?=\{{)", expression.text))
        assert asked, expression.place
        assert asked <= EXPOSED, expression.place


def test_every_variable_lists_a_label_that_its_metric_has() -> None:
    """A renamed metric or label leaves nobody without a choice; what was chosen before goes by its labels too."""
    labels = {f"{PREFIX}{spec.name}": {"server", *spec.labels} for spec in METRICS}
    asked = list(choices())
    assert {each.dashboard for each in asked} == set(DASHBOARDS)
    for choice in asked:
        metric, _, matchers = choice.text.partition("{")
        assert metric in EXPOSED, choice.place
        assert {choice.name, *re.findall(r"(\w+)=~`", matchers)} <= labels[metric], choice.place


def test_every_metric_is_shown_somewhere() -> None:
    """Nothing is measured that nobody sees; of a histogram, its buckets."""
    shown = " ".join(expression.text for expression in expressions())
    assert {spec.name for spec in METRICS if f"{PREFIX}{spec.name}" not in shown} == set()


def test_no_session_counts_twice_when_two_daemons_watch_a_server() -> None:
    """Every selection is folded by the labels of ours at once, whichever instance it comes from."""
    selection = re.compile(rf"{PREFIX}\w+\{{")
    folded = re.compile(
        rf"(?:max|min) by \([\w, ]*\bserver\b[\w, ]*\) \((?:60 \* )?(?:(?:rate|increase)\()?{PREFIX}\w+\{{"
    )
    for expression in expressions():
        assert len(selection.findall(expression.text)) == len(folded.findall(expression.text)), expression.place


def test_no_fold_keeps_apart_what_differs_by_watcher() -> None:
    """Labels of the daemon that polled, which the alert rules fold away too, are in no list of `by (…)`."""
    rules = (FOLDER.parents[1] / "alerts" / "alert_rules.yml").read_text(encoding="utf-8")
    lists = re.findall(r"max without \(([\w, ]+)\)", rules)
    of_watchers = set.intersection(*(set(labels.split(", ")) for labels in lists))
    assert of_watchers >= {"instance", "job", "pod", "container", "endpoint", "service", "node"}
    for expression in expressions():
        kept = {label for labels in re.findall(r"\bby \(([^)]*)\)", expression.text) for label in labels.split(", ")}
        assert kept & of_watchers == set(), expression.place


def test_every_verdict_has_a_code_and_every_code_its_words() -> None:
    """A new verdict does not appear as a bare number."""
    assert set(VERDICT_CODES) == set(Verdict)
    for name, dashboard in loaded().items():
        mappings = re.findall(r'"text": "(\w+)", "color"', json.dumps(dashboard))
        assert set(Verdict) <= set(mappings), name


@pytest.mark.parametrize("names", [AWKWARD[:1], AWKWARD, None], ids=["one", "several", "all"])
def test_every_expression_is_promql_whatever_the_names(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    """Quotes, braces, backslashes, template syntax and special characters of patterns break no query."""
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is not installed: apt install prometheus")
    values = dict.fromkeys(("server", "database", "user", "application"), names)
    queries = [filled(each.text, values, window="1m") for each in (*expressions(), *annotations(), *choices())]
    rules = [{"record": f"test:query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    document = {"groups": [{"name": "queries", "rules": rules}]}
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")  # JSON is YAML but for surrogates
    checked = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


@every_dashboard
def test_alerts_that_the_annotations_name_exist(name: str) -> None:
    """The pattern matches alert rules that ship, and the watcher's own stay out of the charts."""
    [annotation] = loaded()[name]["annotations"]["list"]
    pattern = re.search(r'alertname=~"([^"]+)"', annotation["expr"])
    assert pattern
    rules = yaml.safe_load((FOLDER.parents[1] / "alerts" / "alert_rules.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    matched = {alert for alert in alerts if re.fullmatch(pattern[1], alert)}
    assert "DatabaseConnectionLeak" in matched
    assert {alert for alert in alerts if not alert.startswith("Pgwatch")} == matched


def test_provisioning_is_yaml_that_leads_to_prometheus_and_to_a_folder() -> None:
    """What Grafana reads at its start."""
    folder = FOLDER.with_name("provisioning")
    [provider] = yaml.safe_load((folder / "dashboards" / "pgwatch-sessions.yml").read_text())["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    prometheus = yaml.safe_load((FOLDER.parents[1] / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
