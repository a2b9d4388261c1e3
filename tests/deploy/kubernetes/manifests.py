"""Build the kustomizations, and read the objects."""

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
#: Kustomizations whose pods contain the daemon.
PODS = (KUBERNETES / "base", STANDALONE, SIDECAR)
BUILDABLE = (*PODS, OPERATOR)

DAEMON = "pgwatch-sessions"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Reads a bare `=` as text, as kubectl writes it."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str)


@functools.cache
def _kubectl() -> str:
    """Return why kubectl cannot be used; empty if it can."""
    if shutil.which("kubectl") is None:
        return "kubectl is not installed: see https://kubernetes.io/docs/tasks/tools/"
    result = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, check=True, timeout=60
    )
    version = json.loads(result.stdout)["clientVersion"]
    if int(version["minor"].rstrip("+")) < 27:
        return f"kubectl {version['gitVersion']} is too old: 1.27 or newer, see https://kubernetes.io/docs/tasks/tools/"
    return ""


needs_kubectl = pytest.mark.skipif(bool(_kubectl()), reason=_kubectl())


def kustomize(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return the objects that `kubectl kustomize` builds from a folder."""
    result = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # for example, a warning about a deprecated field
    return tuple(yaml.load_all(result.stdout, Loader=_Loader))


build_objects = functools.cache(kustomize)


def objects_of_kind(name: str, objects: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Return the objects of one kind."""
    return [each for each in objects if each["kind"] == name]


def workload_of(objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the Deployment or StatefulSet."""
    (found,) = [each for each in objects if each["kind"] in {"Deployment", "StatefulSet"}]
    return found


def pod_of(objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Return the pod template of the workload."""
    pod: dict[str, Any] = workload_of(objects)["spec"]["template"]
    return pod


def daemon_in(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the daemon's container."""
    (container,) = [each for each in pod["spec"]["containers"] if each["name"] == DAEMON]
    found: dict[str, Any] = container
    return found


def selector_matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a selector, which must have labels only, matches these labels."""
    assert set(selector) == {"matchLabels"}
    return bool(selector["matchLabels"]) and selector["matchLabels"].items() <= labels.items()


def port_names(pod: Mapping[str, Any]) -> dict[str, int]:
    """Return the named ports of all containers. Kubernetes rejects duplicate names."""
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
    names = {port["name"]: port["containerPort"] for port in ports}
    assert len(names) == len(ports)
    return names


def probes(container: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and definition of each probe."""
    return (
        (name, container[name]) for name in ("startupProbe", "livenessProbe", "readinessProbe") if name in container
    )
