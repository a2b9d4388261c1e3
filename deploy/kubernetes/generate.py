"""Write objects for Prometheus Operator and Grafana from alerts/, deploy/alertmanager/ and grafana/dashboards/.

    python deploy/kubernetes/generate.py [FOLDER]

The files are checked in, and a test fails if they differ from what this writes.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Recording rules first, for readers; Prometheus evaluates groups in parallel.
RULES = tuple(ROOT / "alerts" / name for name in ("recording_rules.yml", "alert_rules.yml"))
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
DASHBOARDS = ROOT / "grafana" / "dashboards"

LABELS = {"app.kubernetes.io/name": "pgwatch-sessions", "app.kubernetes.io/part-of": "pgwatch-sessions"}
HEAD = "# Written by deploy/kubernetes/generate.py. Do not edit.\n"
#: The Secret with the URL of each receiver, under the receiver's name.
SECRET = "pgwatch-sessions-receivers"  # noqa: S105 - a name

_MATCHER = re.compile(r'(?P<name>\w+)(?P<type>=~|!~|!=|=)"(?P<value>[^"\\]*)"')

Values = Mapping[str, Any]


class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Writes texts of several lines as blocks, and no YAML aliases."""

    def ignore_aliases(self, _data: object) -> bool:
        """Repeat equal values, so that readers do not have to resolve aliases."""
        return True


def _text(dumper: Dumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def prometheus_rule() -> dict[str, Any]:
    """Return all rules as one PrometheusRule."""
    groups = [group for file in RULES for group in _load_yaml(file)["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "pgwatch-sessions", "labels": LABELS},
        "spec": {"groups": groups},
    }


def alertmanager_config() -> dict[str, Any]:
    """Return Alertmanager's configuration as an AlertmanagerConfig that matches our own alerts only.

    The Operator merges it with the configurations of others, for one shared Alertmanager.
    """
    shipped = _load_yaml(ALERTMANAGER)
    return {
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "AlertmanagerConfig",
        "metadata": {"name": "pgwatch-sessions", "labels": LABELS},
        "spec": {
            "route": {"matchers": [_our_alerts()], **_route(shipped["route"])},
            "inhibitRules": [_inhibition(rule) for rule in shipped["inhibit_rules"]],
            "receivers": [_receiver(receiver) for receiver in shipped["receivers"]],
        },
    }


def dashboards() -> Iterator[dict[str, Any]]:
    """Yield a ConfigMap for each dashboard, with the label that Grafana's sidecar selects."""
    for file in sorted(DASHBOARDS.glob("*.json")):
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"pgwatch-sessions-dashboard-{file.stem}",
                "labels": {**LABELS, "grafana_dashboard": "1"},
                "annotations": {"grafana_folder": "PostgreSQL sessions"},
            },
            "data": {f"pgwatch-sessions-{file.name}": file.read_text(encoding="utf-8")},
        }


def _route(route: Values) -> dict[str, Any]:
    renamed = {_camel(key): value for key, value in route.items()}
    if "matchers" in route:
        renamed["matchers"] = _matchers(route["matchers"])
    if "routes" in route:
        renamed["routes"] = [_route(child) for child in route["routes"]]
    return renamed


def _inhibition(rule: Values) -> dict[str, Any]:
    return {
        "sourceMatch": _restricted_to_ours(_matchers(rule["source_matchers"])),
        "targetMatch": _restricted_to_ours(_matchers(rule["target_matchers"])),
        "equal": rule["equal"],
    }


def _receiver(receiver: Values) -> dict[str, Any]:
    ((kind, hooks),) = ((key, value) for key, value in receiver.items() if key != "name")
    if kind != "webhook_configs" or [set(hook) for hook in hooks] != [{"url"}]:
        raise ValueError(
            f"{ALERTMANAGER}: receiver {receiver['name']} must have exactly one webhook with a URL; extend generate.py "
            "for other kinds"
        )
    return {
        "name": receiver["name"],
        "webhookConfigs": [{"urlSecret": {"name": SECRET, "key": receiver["name"]}}],
    }


def _restricted_to_ours(matchers: Sequence[Values]) -> list[Values]:
    """Return the matchers, with one for our alerts if they do not match the alert's name."""
    has_alertname = any(matcher["name"] == "alertname" for matcher in matchers)
    return [*matchers] if has_alertname else [_our_alerts(), *matchers]


def _our_alerts() -> Values:
    rules = [rule for file in RULES for group in _load_yaml(file)["groups"] for rule in group["rules"]]
    names = sorted({rule["alert"] for rule in rules if "alert" in rule})
    return {"name": "alertname", "matchType": "=~", "value": "|".join(names)}


def _matchers(texts: Sequence[str]) -> list[Values]:
    return [_matcher(text) for text in texts]


def _matcher(text: str) -> Values:
    match = _MATCHER.fullmatch(text)
    if match is None:
        raise ValueError(f'{ALERTMANAGER}: matcher {text} must have the form name="value"')
    return {"name": match["name"], "matchType": match["type"], "value": match["value"]}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _load_yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def main() -> None:
    """Write all files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "overlays" / "prometheus-operator"
    files = {
        "prometheusrule.yaml": [prometheus_rule()],
        "alertmanagerconfig.yaml": [alertmanager_config()],
        "dashboards.yaml": list(dashboards()),
    }
    for name, objects in files.items():
        text = yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
        (folder / name).write_text(HEAD + text, encoding="utf-8")


if __name__ == "__main__":
    main()
