"""The objects for Prometheus Operator match its API, and have the same content as the plain files."""

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes.manifests import KUBERNETES, OPERATOR, ROOT, build_objects, needs_kubectl, objects_of_kind
from tests.deploy.kubernetes.operator_schemas import SCHEMAS
from tests.support.alert_rules import ALERTS, RULE_FILES, load_yaml, needs_amtool, needs_promtool, rules, run_tool

pytestmark = needs_kubectl

SHIPPED = load_yaml(ROOT / "deploy" / "alertmanager" / "alertmanager.yml")
DASHBOARDS = ROOT / "grafana" / "dashboards"
ALERT_NAMES = {rule.name for rule in rules() if rule.is_alert}


def operator_object(name: str) -> dict[str, Any]:
    """Return the only object of a kind."""
    (found,) = objects_of_kind(name, build_objects(OPERATOR))
    return found


def schema_errors(each: Mapping[str, Any]) -> list[str]:
    """Return the errors for which the API server would reject the object."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: make deploy-check")
    validator = jsonschema.Draft202012Validator(SCHEMAS[each["kind"]])
    return [error.message for error in validator.iter_errors(each)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_operator_knows_every_field(name: str) -> None:
    """Every value matches its schema, too."""
    assert schema_errors(operator_object(name)) == []


def test_all_objects_of_the_operator_are_checked() -> None:
    """Every kind of object has a schema."""
    kinds = {
        each["kind"] for each in build_objects(OPERATOR) if each["apiVersion"].startswith("monitoring.coreos.com/")
    }
    assert kinds == set(SCHEMAS)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("PodMonitor", lambda spec: spec.update(podMetricEndpoints=spec.pop("podMetricsEndpoints"))),
        ("PodMonitor", lambda spec: spec["podMetricsEndpoints"][0].update(interval="10 s")),
        ("PrometheusRule", lambda spec: spec["groups"][-1]["rules"][0].update(alert="Both")),
        ("PrometheusRule", lambda spec: spec["groups"][0]["rules"][0].update(keepFiringFor="1m")),
        ("AlertmanagerConfig", lambda spec: spec["route"].update(group_by=["server"])),
        ("AlertmanagerConfig", lambda spec: spec["route"]["routes"][0]["matchers"].append('severity="critical"')),
        ("AlertmanagerConfig", lambda spec: spec["route"]["routes"][0].update(repeatInterval="")),
        ("AlertmanagerConfig", lambda spec: spec["inhibitRules"][0].update(sourceMatchers=[])),
        ("AlertmanagerConfig", lambda spec: spec["receivers"][0]["webhookConfigs"][0].update(url="http://a/secret")),
    ],
)
def test_a_field_that_the_operator_does_not_know_is_found(name: str, change: Callable[[Any], object]) -> None:
    """The API server would drop the field silently, or reject the object."""
    broken = copy.deepcopy(operator_object(name))
    change(broken["spec"])
    assert schema_errors(broken)


def test_the_operator_knows_every_field_of_the_example_for_applications() -> None:
    """The README's PodMonitor; its interval is that for the daemon."""
    (example,) = re.findall(r"^```yaml\n(.*?)^```", (KUBERNETES / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    monitor = yaml.safe_load(example)
    (ours,) = operator_object("PodMonitor")["spec"]["podMetricsEndpoints"]
    (theirs,) = monitor["spec"]["podMetricsEndpoints"]
    assert theirs["interval"] == ours["interval"]
    assert [each["targetLabel"] for each in theirs["relabelings"]] == ["application"]
    assert schema_errors(monitor) == []


def test_the_rules_are_those_of_the_files() -> None:
    """Every group and rule is identical, including braces, quotes and line ends in templates."""
    groups = operator_object("PrometheusRule")["spec"]["groups"]
    shipped = [group for file in RULE_FILES for group in load_yaml(file)["groups"]]
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert sorted(groups, key=lambda group: str(group["name"])) == sorted(shipped, key=lambda group: str(group["name"]))


@needs_promtool
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    """The Operator writes the groups of one object into one file."""
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(operator_object("PrometheusRule")["spec"]))
    checked = run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(list(rules()))} rules found" in checked.stdout


def test_the_interval_is_that_of_the_plain_configuration() -> None:
    """Prometheus scrapes at the interval of deploy/prometheus."""
    (endpoint,) = operator_object("PodMonitor")["spec"]["podMetricsEndpoints"]
    plain = load_yaml(ALERTS.parent / "deploy" / "prometheus" / "prometheus.yml")
    assert endpoint["interval"] == plain["global"]["scrape_interval"]


# --- routes ---


def plain_matchers(matchers: Sequence[Mapping[str, str]]) -> list[str]:
    """Return matchers in the form of Alertmanager's own configuration."""
    return [f'{each["name"]}{each["matchType"]}"{each["value"]}"' for each in matchers]


def plain_route(route: Mapping[str, Any]) -> dict[str, Any]:
    """Return a route as the Operator writes it for Alertmanager."""
    names = {
        "receiver": "receiver", "groupBy": "group_by", "groupWait": "group_wait", "groupInterval": "group_interval",
        "repeatInterval": "repeat_interval",
    }  # fmt: skip
    plain = {names[key]: value for key, value in route.items() if key in names}
    if "matchers" in route:
        plain["matchers"] = plain_matchers(route["matchers"])
    if "routes" in route:
        plain["routes"] = [plain_route(child) for child in route["routes"]]
    return plain


def plain_inhibition(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return an inhibition as the Operator writes it for Alertmanager."""
    return {
        "source_matchers": plain_matchers(rule["sourceMatch"]),
        "target_matchers": plain_matchers(rule["targetMatch"]),
        "equal": rule["equal"],
    }


def without_alertname_matchers(plain: dict[str, Any]) -> Any:
    """Remove the matchers that list all of our alerts."""
    ours = {
        text for text in _texts(plain) if text.startswith('alertname=~"') and set(text[12:-1].split("|")) == ALERT_NAMES
    }
    text = json.dumps(plain)
    for each in ours:
        text = text.replace(f"{json.dumps(each)}, ", "").replace(json.dumps(each), "")
    return json.loads(text)


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    children = value.values() if isinstance(value, dict) else value
    return {text for child in children for text in _texts(child)}


def test_routes_and_inhibitions_are_those_of_alertmanager_yml() -> None:
    """Receivers, times, groups and `equal` lists are the same; only the matchers for our own alerts are added."""
    spec = operator_object("AlertmanagerConfig")["spec"]
    route = without_alertname_matchers(plain_route(spec["route"]))
    assert route.pop("matchers") == []
    assert route == SHIPPED["route"]
    assert [without_alertname_matchers(plain_inhibition(rule)) for rule in spec["inhibitRules"]] == SHIPPED[
        "inhibit_rules"
    ]
    assert [receiver["name"] for receiver in spec["receivers"]] == [each["name"] for each in SHIPPED["receivers"]]


def test_alerts_of_others_are_left_alone() -> None:
    """No route takes them, and no inhibition heeds them on either side: each names alerts, all of them ours."""
    spec = operator_object("AlertmanagerConfig")["spec"]
    sides = [rule[side] for rule in spec["inhibitRules"] for side in ("sourceMatch", "targetMatch")]
    for matchers in (spec["route"]["matchers"], *sides):
        (named,) = [each for each in matchers if each["name"] == "alertname"]
        assert set(named["value"].split("|")) <= ALERT_NAMES
        assert named["matchType"] in {"=", "=~"}
    assert set(spec["route"]["matchers"][0]["value"].split("|")) == ALERT_NAMES


@needs_amtool
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("alertname=DatabaseConnectionLeak", "severity=critical"), "wake,others"),
        (("alertname=DatabaseConnectionLeak", "severity=warning"), "attention,others"),
        (("alertname=PgwatchSessionsDown", "severity=critical"), "wake,others"),
        (("alertname=KubePodCrashLooping", "severity=critical"), "others"),
    ],
    ids=["critical", "warning", "down", "another's"],
)
def test_severity_decides_the_receiver_among_the_routes_of_others(
    tmp_path: Path, labels: Sequence[str], receivers: str
) -> None:
    """The Operator puts our route before those of others, and alerts continue to the other routes."""
    spec = operator_object("AlertmanagerConfig")["spec"]
    hooks = [{"url": "http://127.0.0.1:9095/"}]
    our_route = {**plain_route(spec["route"]), "continue": True}
    config = {
        "route": {"receiver": "others", "routes": [our_route, {"receiver": "others"}]},
        "inhibit_rules": [plain_inhibition(rule) for rule in spec["inhibitRules"]],
        "receivers": [{"name": name, "webhook_configs": hooks} for name in ("wake", "attention", "others")],
    }
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    result = run_tool(
        "amtool", "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receivers}", *labels
    )
    assert result.returncode == 0, result.stdout + result.stderr


# --- dashboards ---


def test_the_dashboards_are_those_of_the_files() -> None:
    """Each dashboard is in a ConfigMap with the label that Grafana's sidecar selects, unchanged."""
    maps = objects_of_kind("ConfigMap", build_objects(OPERATOR))
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in maps)
    texts = sorted(text for each in maps for text in each["data"].values())
    assert texts == sorted(file.read_text(encoding="utf-8") for file in DASHBOARDS.glob("*.json"))
    names = [name for each in maps for name in each["data"]]
    assert len(set(names)) == len(maps) == 4
    assert all(name.endswith(".json") for name in names)
