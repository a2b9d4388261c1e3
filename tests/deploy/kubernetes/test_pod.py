"""Run the daemon's container as a process, with its arguments, environment and files, against a real server."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
import yaml

from pgwatch_sessions.demo.child_process import child_process
from tests.deploy.kubernetes.manifests import (
    KUBERNETES,
    PODS,
    ROOT,
    SIDECAR,
    STANDALONE,
    build_objects,
    daemon_in,
    needs_kubectl,
    objects_of_kind,
    pod_of,
    port_names,
    probes,
)
from tests.support.daemons import Daemon, logged
from tests.support.programs import PROGRAM, environment, finished
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until

pytestmark = needs_kubectl

every_pod = pytest.mark.parametrize("folder", PODS, ids=lambda folder: folder.name)

PASSWORD = "p@ss: word/?"
FIELDS = {"metadata.name": "postgres-0", "metadata.namespace": "shop"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The process that a kubelet would start, with the container's files in a folder."""

    arguments: tuple[str, ...]
    env: Mapping[str, str]
    root: Path

    def configuration(self) -> str:
        """Return the effective configuration, as `config` prints it."""
        result = finished("config", env=self.env)
        assert result.returncode == 0, result.stderr
        return result.stdout


def container_of(folder: Path, root: Path) -> Container:
    """Mount the volumes below a folder, and change the paths in the container accordingly."""
    objects = build_objects(folder)
    pod = pod_of(objects)
    daemon = daemon_in(pod)
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    paths = [mount["mountPath"] for mount in daemon["volumeMounts"]]
    for mount in daemon["volumeMounts"]:
        assert mount.get("readOnly", False) is ("emptyDir" not in volumes[mount["name"]])
        assert "subPath" not in mount
        _mount(volumes[mount["name"]], objects, root / mount["mountPath"].lstrip("/"))

    def moved(text: str) -> str:
        return re.sub("|".join(map(re.escape, paths)), lambda path: str(root) + path[0], text)

    for file in root.rglob("*.yaml"):
        file.write_text(moved(file.read_text()))
    env = {name: moved(value) for name, value in _variables(daemon).items()}
    assert "command" not in daemon  # the image's entry point is the program
    return Container(arguments=tuple(daemon["args"]), env={**environment(), **env}, root=root)


def _mount(volume: Mapping[str, Any], objects: tuple[dict[str, Any], ...], at: Path) -> None:
    at.mkdir(parents=True)
    if "emptyDir" in volume:
        return
    if "secret" in volume:
        for key in ("orders", "password"):
            (at / key).write_text(PASSWORD)
    elif volume["configMap"]["name"] == "pgwatch-sessions-ca":
        trustme.CA().cert_pem.write_to_path(at / "ca.crt")
    else:
        (config,) = [
            each
            for each in objects_of_kind("ConfigMap", objects)
            if each["metadata"]["name"] == volume["configMap"]["name"]
        ]
        for key, text in config["data"].items():
            (at / key).write_text(text)


def _variables(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables, with $(NAME) replaced by earlier ones."""
    found: dict[str, str] = {}
    for each in container["env"]:
        value = each["value"] if "value" in each else FIELDS[each["valueFrom"]["fieldRef"]["fieldPath"]]
        found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found


@contextlib.contextmanager
def running(container: Container, *, port: int) -> Iterator[Daemon]:
    """Run the container's process for a server on this machine."""

    def replace_server(text: str) -> str:
        return re.sub(r"@[\w.-]+:5432/postgres(\?[^\s]*)?", f"@127.0.0.1:{port}/postgres", text)

    for file in container.root.rglob("*.yaml"):
        file.write_text(replace_server(file.read_text()))
    env = {name: replace_server(value) for name, value in container.env.items()}
    log = container.root / "log"
    log.touch()
    # The pod's port may be in use on this machine.
    env["PGWATCH_SESSIONS_LISTEN"] = "127.0.0.1:0"
    with child_process((*PROGRAM, *container.arguments), env=env, log=log) as process:
        started = until(lambda: [event for event in logged(log) if event["event"] == "started"], within=20)
        yield Daemon(process=process, log=log, address=started[0]["address"])


@every_pod
def test_the_configuration_is_valid(folder: Path, tmp_path: Path) -> None:
    """Every variable is a setting, every file exists, and the daemon listens on the pod's port."""
    container = container_of(folder, tmp_path)
    effective = container.configuration()
    port = port_names(pod_of(build_objects(folder)))["pgwatch-http"]
    assert yaml.safe_load(effective)["listen"].endswith(f":{port}")
    assert PASSWORD not in effective


@pytest.mark.parametrize("name", ["PGWATCH_SESSIONS_LISTEM", "PGWATCH_SESSIONS_PASSWORD"])
def test_an_unknown_variable_is_found(tmp_path: Path, name: str) -> None:
    """The test above can fail."""
    container = container_of(SIDECAR, tmp_path)
    assert finished("config", env={**container.env, name: "x"}).returncode == 2


def test_the_certificate_of_a_managed_database_is_verified() -> None:
    """The DSN requires it, and the CA certificates are mounted at the path in the DSN."""
    (config,) = objects_of_kind("ConfigMap", build_objects(STANDALONE))
    (dsn,) = re.findall(r"dsn: (\S+)", config["data"]["pgwatch-sessions.yaml"])
    assert "sslmode=verify-full" in dsn
    mounts = {mount["mountPath"] for mount in daemon_in(pod_of(build_objects(STANDALONE)))["volumeMounts"]}
    (ca,) = re.findall(r"sslrootcert=(\S+)", dsn)
    assert str(Path(ca).parent) in mounts


@every_pod
def test_the_daemon_polls_and_answers_every_probe(
    folder: Path, own_postgres: OwnPostgresFactory, tmp_path: Path
) -> None:
    """It connects with the role of deploy/sql and the mounted password, and uses the server names of the manifests."""
    own = own_postgres(hba=["host all pgwatch_sessions 127.0.0.1/32 scram-sha-256"])
    script = (ROOT / "deploy" / "sql" / "create_monitor_role.sql").read_bytes()
    with psycopg.connect(own.dsn()) as connection:
        connection.execute(script)
        connection.execute(f"ALTER ROLE pgwatch_sessions PASSWORD '{PASSWORD}'".encode())
    with running(container_of(folder, tmp_path), port=own.port) as daemon:
        scrape = daemon.scrape_when_up()
        name = "shop/postgres-0" if folder == SIDECAR else "orders"
        assert scrape.value("up", server=name) == 1
        assert scrape.value("hidden_sessions", server=name) == 0
        for _name, probe in probes(daemon_in(pod_of(build_objects(folder)))):
            assert daemon.get(probe["httpGet"]["path"]).status_code == 200
        assert until(lambda: list((tmp_path / "var/lib/pgwatch-sessions").glob("*.state.json.gz")))
    assert PASSWORD not in daemon.log.read_text()


def test_a_database_that_is_down_fails_no_probe(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The pod is neither restarted nor removed from the Service, so the page and the metrics remain available."""
    own = own_postgres()
    own.stop()
    container = container_of(KUBERNETES / "base", tmp_path)
    with running(container, port=own.port) as daemon:
        daemon.scrape_when(lambda scrape: scrape.value("up") == 0)
        for _name, probe in probes(daemon_in(pod_of(build_objects(KUBERNETES / "base")))):
            assert daemon.get(probe["httpGet"]["path"]).status_code == 200
