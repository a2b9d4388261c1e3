"""What the kustomizations build, as values."""

import functools
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
STANDALONE, SIDECAR, OPERATOR = (
    KUBERNETES / "overlays" / name for name in ("standalone", "sidecar", "prometheus-operator")
)
#: Where pods are, and the daemon in them.
PODS = (KUBERNETES / "base", STANDALONE, SIDECAR)
BUILDABLE = (*PODS, OPERATOR)

DAEMON = "pgwatch-sessions"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Reads a bare `=` as the text that it is to kubectl, which writes it so."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str)


@functools.cache
def _kubectl() -> str:
    """Return why kubectl cannot be used, nothing when it can."""
    if shutil.which("kubectl") is None:
        return "kubectl is not installed: see https://kubernetes.io/docs/tasks/tools/"
    said = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, check=True, timeout=60)
    version = json.loads(said.stdout)["clientVersion"]
    if int(version["minor"].rstrip("+")) < 27:
        return f"kubectl {version['gitVersion']} is too old: 1.27 or newer, see https://kubernetes.io/docs/tasks/tools/"
    return ""


needs_kubectl = pytest.mark.skipif(bool(_kubectl()), reason=_kubectl())


def kustomized(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return what `kubectl kustomize` builds of a folder."""
    said = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""  # a field that is going away is a warning
    return tuple(yaml.load_all(said.stdout, Loader=_Loader))


built = functools.cache(kustomized)


def kind(name: str, objects: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return [each for each in objects if each["kind"] == name]


def workload(objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the one object that makes pods."""
    (found,) = [each for each in objects if each["kind"] in {"Deployment", "StatefulSet"}]
    return found


def pod_of(objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the pod that is made."""
    pod: dict[str, Any] = workload(objects)["spec"]["template"]
    return pod


def daemon_in(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the daemon's container."""
    (container,) = [each for each in pod["spec"]["containers"] if each["name"] == DAEMON]
    found: dict[str, Any] = container
    return found


def selected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Judge whether a selector of labels alone selects what has these."""
    assert set(selector) == {"matchLabels"}
    return bool(selector["matchLabels"]) and selector["matchLabels"].items() <= labels.items()


def port_names(pod: Mapping[str, Any]) -> dict[str, int]:
    """Return the named ports of all containers; a name that two have is an error of Kubernetes'."""
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
    names = {port["name"]: port["containerPort"] for port in ports}
    assert len(names) == len(ports)
    return names


def probes(container: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each probe with its name."""
    return (
        (name, container[name]) for name in ("startupProbe", "livenessProbe", "readinessProbe") if name in container
    )
