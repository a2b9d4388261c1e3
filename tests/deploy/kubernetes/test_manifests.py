import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pgwatch_sessions
from tests.deploy.kubernetes.manifests import (
    BUILDABLE,
    DAEMON,
    KUBERNETES,
    OPERATOR,
    PODS,
    ROOT,
    SIDECAR,
    STANDALONE,
    built,
    daemon_in,
    kind,
    kustomized,
    needs_kubectl,
    pod_of,
    port_names,
    probes,
    selected,
    workload,
)
from tests.deploy.kubernetes.restricted import violations

pytestmark = needs_kubectl

every_folder = pytest.mark.parametrize("folder", BUILDABLE, ids=lambda folder: folder.name)
every_pod = pytest.mark.parametrize("folder", PODS, ids=lambda folder: folder.name)


def test_no_kustomization_is_forgotten() -> None:
    """All but components, which build nothing by themselves, are known to these tests."""
    files = KUBERNETES.rglob("kustomization.yaml")
    assert {file.parent for file in files if yaml.safe_load(file.read_text())["kind"] != "Component"} == set(BUILDABLE)


@every_folder
@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_kubernetes_knows_every_field(folder: Path, version: str) -> None:
    """In the strict schemas of three versions; what only the Operator knows is checked elsewhere."""
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: make deploy-check"
    ).validate
    objects = [each for each in built(folder) if not each["apiVersion"].startswith("monitoring.coreos.com/")]
    assert objects
    for each in objects:
        validate(each, version, strict=True)


@every_pod
def test_the_pod_is_restricted(folder: Path) -> None:
    """A namespace that enforces the restricted profile takes it, and our container can write nowhere."""
    pod = pod_of(built(folder))
    assert violations(pod["spec"]) == []
    security = daemon_in(pod)["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert (security["runAsUser"], security["runAsGroup"]) == (65532, 65532)
    assert pod["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    "change",
    [
        lambda spec, _one: spec.update(hostNetwork=True),
        lambda spec, _one: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        lambda spec, _one: spec["securityContext"].update(sysctls=[{"name": "kernel.shm_rmid_forced", "value": "1"}]),
        lambda spec, one: spec.update(initContainers=[{**one, "securityContext": {}}]),
        lambda _spec, one: one["securityContext"].update(privileged=True),
        lambda _spec, one: one["securityContext"].pop("allowPrivilegeEscalation"),
        lambda _spec, one: one["securityContext"].update(runAsNonRoot=False),
        lambda _spec, one: one["securityContext"].update(runAsUser=0),
        lambda _spec, one: one["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        lambda _spec, one: one["securityContext"]["capabilities"].update(drop=["NET_RAW"]),
        lambda _spec, one: one["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        lambda _spec, one: one["ports"][0].update(hostPort=9488),
    ],
)
def test_what_is_not_restricted_is_found(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Each rule of the profile, broken."""
    pod = copy.deepcopy(pod_of(built(STANDALONE)))
    change(pod["spec"], daemon_in(pod))
    assert len(violations(pod["spec"])) >= 1


def test_the_namespace_enforces_what_the_pod_keeps() -> None:
    """A pod that was changed for the worse is refused."""
    (namespace,) = kind("Namespace", built(STANDALONE))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [each for each in built(STANDALONE) if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {namespace["metadata"]["name"]}


@every_pod
def test_the_image_is_that_of_this_version(folder: Path) -> None:
    """By its exact tag, which nothing else repeats."""
    pod = pod_of(built(folder))
    assert daemon_in(pod)["image"] == f"ghcr.io/pgwatch-sessions/pgwatch-sessions:{pgwatch_sessions.__version__}"
    assert yaml.safe_dump_all(built(folder)).count(pgwatch_sessions.__version__) == 1


@every_pod
def test_the_image_is_what_the_container_takes_it_for(folder: Path) -> None:
    """The program is its entry point; user and port are the same here and there."""
    *_stages, last = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pod = pod_of(built(folder))
    daemon = daemon_in(pod)
    assert 'ENTRYPOINT ["pgwatch-sessions"]' in last
    assert "command" not in daemon
    assert daemon["args"] == ["run"]
    assert f"EXPOSE {port_names(pod)['pgwatch-http']}\n" in last
    security = daemon["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in last


@every_pod
def test_selectors_select_the_pod(folder: Path) -> None:
    """Of the workload itself, of the Service, of the NetworkPolicy and of the PodMonitor; each names a port it has."""
    objects = built(folder)
    pod = pod_of(objects)
    labels, ports = pod["metadata"]["labels"], port_names(pod)
    assert selected(workload(objects)["spec"]["selector"], labels)
    (service,) = kind("Service", objects)
    assert selected({"matchLabels": service["spec"]["selector"]}, labels)
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    (monitor,) = kind("PodMonitor", built(OPERATOR))
    assert selected(monitor["spec"]["selector"], labels)
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= set(ports)


@pytest.mark.parametrize("folder", [KUBERNETES / "base", STANDALONE], ids=["base", "standalone"])
def test_the_network_is_closed_but_for_prometheus_dns_and_postgresql(folder: Path) -> None:
    """In: our port, from the namespace of Prometheus. Out: port 53 of the cluster's own DNS, port 5432."""
    (policy,) = kind("NetworkPolicy", built(folder))
    pod = pod_of(built(folder))
    spec = policy["spec"]
    assert selected(spec["podSelector"], pod["metadata"]["labels"])
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (ingress,) = spec["ingress"]
    monitoring = kind("PodMonitor", built(OPERATOR))[0]["metadata"]["namespace"]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": monitoring}}}]
    assert [port["port"] for port in ingress["ports"]] == [port_names(pod)["pgwatch-http"]]
    assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53, 5432}


def test_one_daemon_and_never_two() -> None:
    """A new pod comes when the old one has ended: a server's slots are not to be had twice."""
    spec = workload(built(STANDALONE))["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] <= 30


@every_pod
def test_memory_suffices_and_ends_somewhere(folder: Path) -> None:
    """75 MiB at 10,000 sessions fit; what is asked for covers the 51 MiB at 200."""
    resources = daemon_in(pod_of(built(folder)))["resources"]
    limit, request = (int(resources[each]["memory"].removesuffix("Mi")) for each in ("limits", "requests"))
    assert limit >= 75 * 1.5
    assert request >= 51


def test_another_configuration_brings_another_pod(tmp_path: Path) -> None:
    """The ConfigMap's name goes with its content, and the pod mounts it by that name."""
    copied = Path(shutil.copytree(KUBERNETES, tmp_path / "kubernetes"))
    file = copied / "overlays" / "standalone" / "pgwatch-sessions.yaml"
    file.write_text(file.read_text() + "hold_limit: 2m\n")
    names = []
    for objects in (built(STANDALONE), kustomized(file.parent)):
        (config,) = kind("ConfigMap", objects)
        volumes = {volume["name"]: volume for volume in pod_of(objects)["spec"]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
        names.append(config["metadata"]["name"])
    assert len(set(names)) == 2


@every_folder
def test_no_secret_is_in_it(folder: Path) -> None:
    """Secrets are made by hand; a DSN has no password."""
    assert kind("Secret", built(folder)) == []
    assert re.findall(r"://[^/\s@]*:[^/\s@]*@", yaml.safe_dump_all(built(folder))) == []


# --- the sidecar ---


def test_the_sidecar_differs_where_it_has_to() -> None:
    """The same container as stand-alone, but for what it watches, its probes and its resources."""
    alone, beside = (daemon_in(pod_of(built(folder))) for folder in (KUBERNETES / "base", SIDECAR))
    different = {key for key in {*alone, *beside} if alone.get(key) != beside.get(key)}
    assert different == {"env", "readinessProbe", "resources", "volumeMounts"}


def test_the_sidecar_takes_nothing_from_the_database() -> None:
    """Not its readiness, not its place as the first container, not its class; and its start waits for nobody."""
    spec = pod_of(built(SIDECAR))["spec"]
    sidecar = daemon_in({"spec": spec})
    assert [name for name, _probe in probes(sidecar)] == ["startupProbe", "livenessProbe"]
    assert [container["name"] for container in spec["containers"]] == ["postgres", DAEMON]
    assert "initContainers" not in spec
    assert all(each["resources"]["requests"] == each["resources"]["limits"] for each in spec["containers"])
    assert kind("NetworkPolicy", built(SIDECAR)) == []


def test_the_example_is_ready_when_its_data_folder_is() -> None:
    """By TCP: while the image initialises, a server that ends again listens on the socket. As in deploy/compose."""
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]["postgres"]
    postgres = pod_of(built(SIDECAR))["spec"]["containers"][0]
    asked = postgres["readinessProbe"]["exec"]["command"]
    assert asked == [word for word in compose["healthcheck"]["test"][1:] if not word.startswith("--dbname")]
    assert postgres["image"] == compose["image"]


def test_each_server_has_a_name_of_its_own() -> None:
    """All are 127.0.0.1:5432 to their sidecars; namespace and pod tell them apart."""
    env = {each["name"]: each for each in daemon_in(pod_of(built(SIDECAR)))["env"]}
    assert env["PGWATCH_SESSIONS_NAME"]["value"] == "$(POD_NAMESPACE)/$(POD_NAME)"
    names = list(env)
    assert max(map(names.index, ("POD_NAMESPACE", "POD_NAME"))) < names.index("PGWATCH_SESSIONS_NAME")


APPLICATION = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, labels: {LABEL}}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec: {containers: [{name: orders, image: orders}]}
"""


@pytest.mark.parametrize(
    ("label", "containers"),
    [('pgwatch-sessions/sidecar: "true"', ["orders", DAEMON]), ('pgwatch-sessions/sidecar: "false"', ["orders"])],
)
def test_the_component_goes_into_every_labelled_workload(tmp_path: Path, label: str, containers: list[str]) -> None:
    """An application's Deployment too, which has no volumes yet; and into no other."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    (tmp_path / "orders.yaml").write_text(APPLICATION.replace("LABEL", label))
    (tmp_path / "kustomization.yaml").write_text(
        json.dumps({"resources": ["orders.yaml"], "components": ["kubernetes/components/sidecar"]})
    )
    (deployment,) = kustomized(tmp_path)
    pod = deployment["spec"]["template"]
    assert (deployment["kind"], deployment["metadata"]["name"]) == ("Deployment", "orders")
    assert [container["name"] for container in pod["spec"]["containers"]] == containers
    mounts = {mount["name"] for container in pod["spec"]["containers"] for mount in container.get("volumeMounts", ())}
    assert mounts == {volume["name"] for volume in pod["spec"].get("volumes", ())}


# --- sizes ---


@every_folder
def test_an_object_fits_into_the_annotation_of_kubectl_apply(folder: Path) -> None:
    """Which holds the object as JSON, and all annotations together 256 KiB; so --server-side is not needed."""
    for each in built(folder):
        assert len(json.dumps(each, ensure_ascii=False).encode()) < 262144 - 4096, each["metadata"]["name"]
