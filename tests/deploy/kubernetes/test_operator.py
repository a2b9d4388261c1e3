"""What Prometheus Operator gets is of the form it knows, and says what the plain files say."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.rules import ALERTS, RULE_FILES, load_yaml, needs_amtool, needs_promtool, rules, run_tool
from tests.deploy.kubernetes.manifests import OPERATOR, ROOT, built, kind, needs_kubectl
from tests.deploy.kubernetes.operator_schemas import SCHEMAS

pytestmark = needs_kubectl

SHIPPED = load_yaml(ROOT / "deploy" / "alertmanager" / "alertmanager.yml")
DASHBOARDS = ROOT / "grafana" / "dashboards"
ALERT_NAMES = {rule.name for rule in rules() if rule.is_alert}


def one(name: str) -> dict[str, Any]:
    """Return the one object of a kind."""
    (found,) = kind(name, built(OPERATOR))
    return found


def faults(each: Mapping[str, Any]) -> list[str]:
    """Return what the Operator's API server would refuse."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: make deploy-check")
    validator = jsonschema.Draft202012Validator(SCHEMAS[each["kind"]])
    return [error.message for error in validator.iter_errors(each)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_operator_knows_every_field(name: str) -> None:
    """And each value is of its form."""
    assert faults(one(name)) == []


def test_all_objects_of_the_operator_are_checked() -> None:
    """None is of a kind that there is no schema for."""
    kinds = {each["kind"] for each in built(OPERATOR) if each["apiVersion"].startswith("monitoring.coreos.com/")}
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
    """The API server would drop it without a word, or refuse the object."""
    broken = copy.deepcopy(one(name))
    change(broken["spec"])
    assert faults(broken)


def test_the_rules_are_those_of_the_files() -> None:
    """Every group with every rule, to the letter: braces, quotes and line ends of the templates too."""
    groups = one("PrometheusRule")["spec"]["groups"]
    shipped = [group for file in RULE_FILES for group in load_yaml(file)["groups"]]
    names = [group["name"] for group in groups]
    assert len(set(names)) == len(names)
    assert sorted(groups, key=lambda group: str(group["name"])) == sorted(shipped, key=lambda group: str(group["name"]))


@needs_promtool
def test_promtool_accepts_them(tmp_path: Path) -> None:
    """As the Operator writes them for Prometheus: the groups of one object are one file."""
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(one("PrometheusRule")["spec"]))
    checked = run_tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(list(rules()))} rules found" in checked.stdout


def test_the_interval_is_that_of_the_plain_configuration() -> None:
    """Neither more often than the daemon polls, nor less."""
    (endpoint,) = one("PodMonitor")["spec"]["podMetricsEndpoints"]
    plain = load_yaml(ALERTS.parent / "deploy" / "prometheus" / "prometheus.yml")
    assert endpoint["interval"] == plain["global"]["scrape_interval"]


# --- routes ---


def plain_matchers(matchers: Sequence[Mapping[str, str]]) -> list[str]:
    """Return matchers as Alertmanager's own configuration has them."""
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


def plain_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return an inhibition as the Operator writes it for Alertmanager."""
    return {
        "source_matchers": plain_matchers(rule["sourceMatch"]),
        "target_matchers": plain_matchers(rule["targetMatch"]),
        "equal": rule["equal"],
    }


def without_ours(plain: dict[str, Any]) -> Any:
    """Leave out the matchers that name all of our alerts."""
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
    """The same receivers, times, groups and `equal` lists, but that they are about our own alerts."""
    spec = one("AlertmanagerConfig")["spec"]
    route = without_ours(plain_route(spec["route"]))
    assert route.pop("matchers") == []
    assert route == SHIPPED["route"]
    assert [without_ours(plain_rule(rule)) for rule in spec["inhibitRules"]] == SHIPPED["inhibit_rules"]
    assert [receiver["name"] for receiver in spec["receivers"]] == [each["name"] for each in SHIPPED["receivers"]]


def test_alerts_of_others_are_left_alone() -> None:
    """No route takes them, and no inhibition heeds them on either side: each names alerts, all of them ours."""
    spec = one("AlertmanagerConfig")["spec"]
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
def test_beside_the_routes_of_others_severity_decides(tmp_path: Path, labels: Sequence[str], receivers: str) -> None:
    """As the Operator puts it into its Alertmanager: our route first, the alert going on to the others'."""
    spec = one("AlertmanagerConfig")["spec"]
    hooks = [{"url": "http://127.0.0.1:9095/"}]
    ours = {**plain_route(spec["route"]), "continue": True}
    config = {
        "route": {"receiver": "others", "routes": [ours, {"receiver": "others"}]},
        "inhibit_rules": [plain_rule(rule) for rule in spec["inhibitRules"]],
        "receivers": [{"name": name, "webhook_configs": hooks} for name in ("wake", "attention", "others")],
    }
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    said = run_tool(
        "amtool", "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receivers}", *labels
    )
    assert said.returncode == 0, said.stdout + said.stderr


# --- dashboards ---


def test_the_dashboards_are_those_of_the_files() -> None:
    """Each in a ConfigMap that Grafana's sidecar takes, to the letter."""
    maps = kind("ConfigMap", built(OPERATOR))
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in maps)
    texts = sorted(text for each in maps for text in each["data"].values())
    assert texts == sorted(file.read_text(encoding="utf-8") for file in DASHBOARDS.glob("*.json"))
    names = [name for each in maps for name in each["data"]]
    assert len(set(names)) == len(maps) == 3
    assert all(name.endswith(".json") for name in names)
