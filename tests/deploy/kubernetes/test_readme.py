"""Run the commands of deploy/kubernetes/README.md that need no cluster."""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes.manifests import (
    BUILDABLE,
    KUBERNETES,
    OPERATOR,
    PODS,
    ROOT,
    SIDECAR,
    STANDALONE,
    build_objects,
    kustomize,
    needs_kubectl,
    objects_of_kind,
    pod_of,
)

pytestmark = needs_kubectl

README = KUBERNETES / "README.md"
COMMANDS = re.findall(r"^\$ (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)


def commands(*words: str) -> list[list[str]]:
    """Return the commands that contain these words, split into words."""
    return [split for split in map(shlex.split, COMMANDS) if {*words} <= {*split}]


@cache
def readme_objects(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return the objects that the `kubectl create` commands make from files."""
    objects = []
    for command in commands("create"):
        for file in re.findall(r"--from-file=\w[\w.]*=(\S+)", " ".join(command)):
            (folder / file).write_text("x")
        result = subprocess.run(
            [*command, "--dry-run=client", "--output=yaml"], cwd=folder, capture_output=True, timeout=60, check=True
        )
        objects.append(yaml.safe_load(result.stdout))
    return tuple(objects)


def test_every_applied_folder_can_be_built() -> None:
    """The README applies every kustomization except the base, which is only used by overlays."""
    folders = {ROOT / command[command.index("-k") + 1] for command in commands("apply", "-k")}
    assert folders == {*BUILDABLE} - {KUBERNETES / "base"}
    for folder in folders:
        assert kustomize(folder)


def test_files_in_commands_exist() -> None:
    """Paths are relative to the root of the repository."""
    named = [word for command in COMMANDS for word in shlex.split(command) if word.startswith("deploy/")]
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_commands_create_every_mounted_secret_and_configmap(tmp_path: Path) -> None:
    """They are in the right namespace, with the keys that the configuration uses."""
    objects = {(namespace_of(each), each["kind"], each["metadata"]["name"]): each for each in readme_objects(tmp_path)}
    for folder, namespace in ((STANDALONE, "pgwatch-sessions"), (SIDECAR, "")):
        pod = pod_of(build_objects(folder))
        text = yaml.safe_dump_all(build_objects(folder))
        containers = pod["spec"]["containers"]
        paths = {mount["name"]: mount["mountPath"] for each in containers for mount in each.get("volumeMounts", ())}
        included = {(each["kind"], each["metadata"]["name"]) for each in build_objects(folder)}
        for volume in pod["spec"]["volumes"]:
            if "emptyDir" not in volume and (wanted := volume_source(volume)) not in included:
                (key,) = objects[namespace, *wanted]["data"]
                assert re.search(rf"{re.escape(paths[volume['name']])}/{re.escape(key)}(?![\w.-])", text)


def volume_source(volume: dict[str, Any]) -> tuple[str, str]:
    """Return the kind and name of a volume's Secret or ConfigMap."""
    if "secret" in volume:
        return "Secret", volume["secret"]["secretName"]
    return "ConfigMap", volume["configMap"]["name"]


def namespace_of(each: dict[str, Any]) -> str:
    """Return the namespace; empty means the user's current one."""
    return str(each["metadata"].get("namespace", ""))


def test_every_receiver_finds_its_secret(tmp_path: Path) -> None:
    """The Secret has the name and the keys in the AlertmanagerConfig."""
    (config,) = objects_of_kind("AlertmanagerConfig", build_objects(OPERATOR))
    wanted = {
        (hook["urlSecret"]["name"], hook["urlSecret"]["key"])
        for receiver in config["spec"]["receivers"]
        for hook in receiver["webhookConfigs"]
    }
    secrets = [each for each in readme_objects(tmp_path) if namespace_of(each) == namespace_of(config)]
    assert {(each["metadata"]["name"], key) for each in secrets for key in each["data"]} == wanted


def test_commands_name_existing_objects() -> None:
    """`logs`, `rollout` and `port-forward` name objects of the stand-alone pod, `exec` names the first replica."""
    existing = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in build_objects(STANDALONE)}
    named = [word for command in COMMANDS for word in shlex.split(command) if re.match(r"(deployment|service)/", word)]
    assert len(named) == 3
    assert {*named} <= existing
    (stateful,) = objects_of_kind("StatefulSet", build_objects(SIDECAR))
    waiting = COMMANDS.index(f"kubectl rollout status statefulset/{stateful['metadata']['name']}")
    assert waiting < min(at for at, command in enumerate(COMMANDS) if " exec " in command)
    assert {command[3] for command in commands("exec")} == {f"{stateful['metadata']['name']}-0"}


@pytest.mark.parametrize("figure", ["51 MiB", "75 MiB", "128 MiB"])
def test_memory_figures_are_those_of_the_manifests(figure: str) -> None:
    """The figures in the README are also in the comments or limits of both manifests."""
    texts = (PODS[0] / "deployment.yaml", KUBERNETES / "components" / "sidecar" / "container.yaml")
    assert figure in README.read_text(encoding="utf-8")
    for text in texts:
        assert re.search(figure.replace(" MiB", "( MiB|Mi)"), text.read_text(encoding="utf-8"))


def test_every_link_leads_to_a_file() -> None:
    """Links are relative to the README."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not (KUBERNETES / link).exists()] == []
