"""The commands of deploy/kubernetes/README.md, as far as they go without a cluster."""

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
    built,
    kind,
    kustomized,
    needs_kubectl,
    pod_of,
)

pytestmark = needs_kubectl

README = KUBERNETES / "README.md"
COMMANDS = re.findall(r"^\$ (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)


def commands(*words: str) -> list[list[str]]:
    """Return the commands that have these words, split as a shell splits them."""
    return [split for split in map(shlex.split, COMMANDS) if {*words} <= {*split}]


@cache
def made(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return what the commands make that `kubectl create` makes from files, which we put there."""
    objects = []
    for command in commands("create"):
        for file in re.findall(r"--from-file=\w[\w.]*=(\S+)", " ".join(command)):
            (folder / file).write_text("x")
        said = subprocess.run(
            [*command, "--dry-run=client", "--output=yaml"], cwd=folder, capture_output=True, timeout=60, check=True
        )
        objects.append(yaml.safe_load(said.stdout))
    return tuple(objects)


def test_what_is_applied_can_be_built() -> None:
    """`kubectl apply -k` of every folder but the base, which is no thing of its own."""
    folders = {ROOT / command[command.index("-k") + 1] for command in commands("apply", "-k")}
    assert folders == {*BUILDABLE} - {KUBERNETES / "base"}
    for folder in folders:
        assert kustomized(folder)


def test_the_files_that_commands_name_are_there() -> None:
    """In the root of the repository, where they are given."""
    named = [word for command in COMMANDS for word in shlex.split(command) if word.startswith("deploy/")]
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_secret_and_configmap_that_a_pod_mounts_is_made(tmp_path: Path) -> None:
    """In its namespace, with the keys that the configuration names."""
    objects = {(namespace_of(each), each["kind"], each["metadata"]["name"]): each for each in made(tmp_path)}
    for folder, namespace in ((STANDALONE, "pgwatch-sessions"), (SIDECAR, "")):
        pod = pod_of(built(folder))
        text = yaml.safe_dump_all(built(folder))
        containers = pod["spec"]["containers"]
        paths = {mount["name"]: mount["mountPath"] for each in containers for mount in each.get("volumeMounts", ())}
        brought = {(each["kind"], each["metadata"]["name"]) for each in built(folder)}
        for volume in pod["spec"]["volumes"]:
            if (wanted := mounted(volume)) not in brought:
                (key,) = objects[namespace, *wanted]["data"]
                assert re.search(rf"{re.escape(paths[volume['name']])}/{re.escape(key)}(?![\w.-])", text)


def mounted(volume: dict[str, Any]) -> tuple[str, str]:
    """Return kind and name of what a volume shows."""
    if "secret" in volume:
        return "Secret", volume["secret"]["secretName"]
    return "ConfigMap", volume["configMap"]["name"]


def namespace_of(each: dict[str, Any]) -> str:
    """Return the namespace; it is empty where the user's own is meant."""
    return str(each["metadata"].get("namespace", ""))


def test_every_receiver_finds_its_secret(tmp_path: Path) -> None:
    """Under the name and the keys that the AlertmanagerConfig refers to."""
    (config,) = kind("AlertmanagerConfig", built(OPERATOR))
    wanted = {
        (hook["urlSecret"]["name"], hook["urlSecret"]["key"])
        for receiver in config["spec"]["receivers"]
        for hook in receiver["webhookConfigs"]
    }
    secrets = [each for each in made(tmp_path) if namespace_of(each) == namespace_of(config)]
    assert {(each["metadata"]["name"], key) for each in secrets for key in each["data"]} == wanted


def test_commands_that_poll_name_what_there_is() -> None:
    """`logs`, `rollout` and `port-forward` name objects of the stand-alone pod; `exec` the database's first replica."""
    there = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in built(STANDALONE)}
    named = [word for command in COMMANDS for word in shlex.split(command) if re.match(r"(deployment|service)/", word)]
    assert len(named) == 3
    assert {*named} <= there
    (stateful,) = kind("StatefulSet", built(SIDECAR))
    waiting = COMMANDS.index(f"kubectl rollout status statefulset/{stateful['metadata']['name']}")
    assert waiting < min(at for at, command in enumerate(COMMANDS) if " exec " in command)
    assert {command[3] for command in commands("exec")} == {f"{stateful['metadata']['name']}-0"}


@pytest.mark.parametrize("figure", ["51 MiB", "75 MiB", "128 MiB"])
def test_figures_are_those_of_the_manifests(figure: str) -> None:
    """What is said of the memory stands at the resources too."""
    texts = (PODS[0] / "deployment.yaml", KUBERNETES / "components" / "sidecar" / "container.yaml")
    assert figure in README.read_text(encoding="utf-8")
    for text in texts:
        assert re.search(figure.replace(" MiB", "( MiB|Mi)"), text.read_text(encoding="utf-8"))


def test_every_link_leads_to_a_file() -> None:
    """Seen from the folder of the README."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not (KUBERNETES / link).exists()] == []
