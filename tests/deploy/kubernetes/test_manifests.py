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
    build_objects,
    daemon_in,
    kustomize,
    needs_kubectl,
    objects_of_kind,
    pod_of,
    port_names,
    probes,
    selector_matches,
    workload_of,
)
from tests.deploy.kubernetes.restricted import violations

pytestmark = needs_kubectl

every_folder = pytest.mark.parametrize("folder", BUILDABLE, ids=lambda folder: folder.name)
every_pod = pytest.mark.parametrize("folder", PODS, ids=lambda folder: folder.name)


def test_no_kustomization_is_forgotten() -> None:
    """These tests know all kustomizations, except components, which build nothing by themselves."""
    files = KUBERNETES.rglob("kustomization.yaml")
    assert {file.parent for file in files if yaml.safe_load(file.read_text())["kind"] != "Component"} == set(BUILDABLE)


@every_folder
@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_kubernetes_knows_every_field(folder: Path, version: str) -> None:
    """The objects match the strict schemas of three versions. Objects of the Operator are checked elsewhere."""
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: make deploy-check"
    ).validate
    objects = [each for each in build_objects(folder) if not each["apiVersion"].startswith("monitoring.coreos.com/")]
    assert objects
    for each in objects:
        validate(each, version, strict=True)


@every_pod
def test_the_pod_is_restricted(folder: Path) -> None:
    """A namespace that enforces `restricted` accepts it, and our container has a read-only file system."""
    pod = pod_of(build_objects(folder))
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
        lambda spec, container: spec.update(initContainers=[{**container, "securityContext": {}}]),
        lambda _spec, container: container["securityContext"].update(privileged=True),
        lambda _spec, container: container["securityContext"].pop("allowPrivilegeEscalation"),
        lambda _spec, container: container["securityContext"].update(runAsNonRoot=False),
        lambda _spec, container: container["securityContext"].update(runAsUser=0),
        lambda _spec, container: container["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        lambda _spec, container: container["securityContext"]["capabilities"].update(drop=["NET_RAW"]),
        lambda _spec, container: container["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        lambda _spec, container: container["ports"][0].update(hostPort=9488),
    ],
)
def test_violations_are_found(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Each change violates one rule of the profile."""
    pod = copy.deepcopy(pod_of(build_objects(STANDALONE)))
    change(pod["spec"], daemon_in(pod))
    assert len(violations(pod["spec"])) >= 1


def test_the_namespace_enforces_the_restricted_profile() -> None:
    """A pod that violates it later is rejected. All other objects are in this namespace."""
    (namespace,) = objects_of_kind("Namespace", build_objects(STANDALONE))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [each for each in build_objects(STANDALONE) if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {namespace["metadata"]["name"]}


@every_pod
def test_the_image_is_that_of_this_version(folder: Path) -> None:
    """The tag is exact, and the version appears nowhere else."""
    pod = pod_of(build_objects(folder))
    assert daemon_in(pod)["image"] == f"ghcr.io/pgwatch-sessions/pgwatch-sessions:{pgwatch_sessions.__version__}"
    assert yaml.safe_dump_all(build_objects(folder)).count(pgwatch_sessions.__version__) == 1


@every_pod
def test_the_container_matches_the_image(folder: Path) -> None:
    """The image's entry point is the program, and user and port are the same in both."""
    *_stages, last = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pod = pod_of(build_objects(folder))
    daemon = daemon_in(pod)
    assert 'ENTRYPOINT ["pgwatch-sessions"]' in last
    assert "command" not in daemon
    assert daemon["args"] == ["run"]
    assert f"EXPOSE {port_names(pod)['pgwatch-http']}\n" in last
    security = daemon["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in last


@every_pod
def test_selectors_select_the_pod(folder: Path) -> None:
    """The selectors of workload, Service and PodMonitor match the pod, and their ports exist."""
    objects = build_objects(folder)
    pod = pod_of(objects)
    labels, ports = pod["metadata"]["labels"], port_names(pod)
    assert selector_matches(workload_of(objects)["spec"]["selector"], labels)
    (service,) = objects_of_kind("Service", objects)
    assert selector_matches({"matchLabels": service["spec"]["selector"]}, labels)
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    (monitor,) = objects_of_kind("PodMonitor", build_objects(OPERATOR))
    assert selector_matches(monitor["spec"]["selector"], labels)
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= set(ports)


@pytest.mark.parametrize("folder", [KUBERNETES / "base", STANDALONE], ids=["base", "standalone"])
def test_the_network_policy_allows_only_prometheus_dns_and_postgresql(folder: Path) -> None:
    """Ingress: our port, from the namespace of Prometheus. Egress: ports 53 and 5432."""
    (policy,) = objects_of_kind("NetworkPolicy", build_objects(folder))
    pod = pod_of(build_objects(folder))
    spec = policy["spec"]
    assert selector_matches(spec["podSelector"], pod["metadata"]["labels"])
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (ingress,) = spec["ingress"]
    monitoring = objects_of_kind("PodMonitor", build_objects(OPERATOR))[0]["metadata"]["namespace"]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": monitoring}}}]
    assert [port["port"] for port in ingress["ports"]] == [port_names(pod)["pgwatch-http"]]
    assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53, 5432}


def test_two_daemons_never_run_at_once() -> None:
    """A new pod starts after the old one has ended, so that a server has one connection of ours and not two."""
    spec = workload_of(build_objects(STANDALONE))["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] <= 30


@every_pod
def test_the_memory_limit_and_request_are_sufficient(folder: Path) -> None:
    """The limit is above the 75 MiB for 10,000 sessions, and the request covers the 51 MiB for 200."""
    resources = daemon_in(pod_of(build_objects(folder)))["resources"]
    limit, request = (int(resources[each]["memory"].removesuffix("Mi")) for each in ("limits", "requests"))
    assert limit >= 75 * 1.5
    assert request >= 51


def test_a_changed_configuration_creates_no_new_pod(tmp_path: Path) -> None:
    """The pod mounts the ConfigMap as a whole, by a name that does not change, and the daemon watches the file."""
    copied = Path(shutil.copytree(KUBERNETES, tmp_path / "kubernetes"))
    file = copied / "overlays" / "standalone" / "pgwatch-sessions.yaml"
    file.write_text(file.read_text() + "hold_limit: 2m\n")
    pods = []
    for objects in (build_objects(STANDALONE), kustomize(file.parent)):
        (config,) = objects_of_kind("ConfigMap", objects)
        pods.append(pod_of(objects))
        volumes = {volume["name"]: volume for volume in pods[-1]["spec"]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert pods[0] == pods[1]
    daemon = daemon_in(pods[0])
    assert {"name": "PGWATCH_SESSIONS_RELOAD", "value": "watch"} in daemon["env"]
    assert "subPath" not in next(mount for mount in daemon["volumeMounts"] if mount["name"] == "config")


@every_folder
def test_the_manifests_contain_no_secrets(folder: Path) -> None:
    """Users create the Secrets, and DSNs have no passwords."""
    assert objects_of_kind("Secret", build_objects(folder)) == []
    assert re.findall(r"://[^/\s@]*:[^/\s@]*@", yaml.safe_dump_all(build_objects(folder))) == []


# --- the sidecar ---


def test_the_sidecar_differs_from_the_standalone_container_only_where_necessary() -> None:
    """Only the environment, the readiness probe, the resources and the volume mounts differ."""
    standalone, sidecar = (daemon_in(pod_of(build_objects(folder))) for folder in (KUBERNETES / "base", SIDECAR))
    different = {key for key in {*standalone, *sidecar} if standalone.get(key) != sidecar.get(key)}
    assert different == {"env", "readinessProbe", "resources", "volumeMounts"}


def test_the_sidecar_does_not_affect_the_database() -> None:
    """The database keeps its readiness, its place as first container and its QoS class; nothing delays its start."""
    spec = pod_of(build_objects(SIDECAR))["spec"]
    sidecar = daemon_in({"spec": spec})
    assert [name for name, _probe in probes(sidecar)] == ["startupProbe", "livenessProbe"]
    assert [container["name"] for container in spec["containers"]] == ["postgres", DAEMON]
    assert "initContainers" not in spec
    assert all(each["resources"]["requests"] == each["resources"]["limits"] for each in spec["containers"])
    assert objects_of_kind("NetworkPolicy", build_objects(SIDECAR)) == []


def test_the_example_database_is_ready_only_after_initialisation() -> None:
    """The probe uses TCP, as in deploy/compose: during initialisation a server listens on the Unix socket only."""
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())["services"]["postgres"]
    postgres = pod_of(build_objects(SIDECAR))["spec"]["containers"][0]
    probe = postgres["readinessProbe"]["exec"]["command"]
    assert probe == [word for word in compose["healthcheck"]["test"][1:] if not word.startswith("--dbname")]
    assert postgres["image"] == compose["image"]


def test_each_replica_has_its_own_server_name() -> None:
    """To its sidecar, every server is 127.0.0.1:5432, so the name consists of namespace and pod."""
    env = {each["name"]: each for each in daemon_in(pod_of(build_objects(SIDECAR)))["env"]}
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
def test_the_component_is_added_to_every_labelled_workload(tmp_path: Path, label: str, containers: list[str]) -> None:
    """That includes a Deployment without volumes. Other workloads do not get it."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    (tmp_path / "orders.yaml").write_text(APPLICATION.replace("LABEL", label))
    (tmp_path / "kustomization.yaml").write_text(
        json.dumps({"resources": ["orders.yaml"], "components": ["kubernetes/components/sidecar"]})
    )
    (deployment,) = kustomize(tmp_path)
    pod = deployment["spec"]["template"]
    assert (deployment["kind"], deployment["metadata"]["name"]) == ("Deployment", "orders")
    assert [container["name"] for container in pod["spec"]["containers"]] == containers
    mounts = {mount["name"] for container in pod["spec"]["containers"] for mount in container.get("volumeMounts", ())}
    assert mounts == {volume["name"] for volume in pod["spec"].get("volumes", ())}


# --- sizes ---


@every_folder
def test_every_object_is_small_enough_for_kubectl_apply(folder: Path) -> None:
    """Kubectl apply stores the object as JSON in an annotation; all annotations together may have 256 KiB."""
    for each in build_objects(folder):
        assert len(json.dumps(each, ensure_ascii=False).encode()) < 262144 - 4096, each["metadata"]["name"]
