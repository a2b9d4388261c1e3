"""The images at work: hardened as the documentation says, on a real server."""

import json
from pathlib import Path

import httpx
import psycopg
import pytest

from pgwatch_sessions import __version__
from tests.deploy.image.building import PROJECT
from tests.deploy.image.machine import Machine
from tests.deploy.image.running import Container, documented, exported, once, running
from tests.support.ports import free_port
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.waiting import until

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

PASSWORD = "p@ss: word/?"


def of_tests() -> tuple[str, ...]:
    """Return options for the port of the server, an address of its own on the machine's network, and haste."""
    listen = f"127.0.0.1:{free_port()}"  # known before: the health check asks there
    return "--env=PGPORT", f"--env=PGWATCH_SESSIONS_LISTEN={listen}", "--env=PGWATCH_SESSIONS_INTERVAL=100ms"


@pytest.fixture
def server(own_postgres: OwnPostgresFactory) -> dict[str, str]:
    """Return the documented variables for a server with the role of deploy/sql; only host and port differ."""
    own = own_postgres(hba=["host all pgwatch_sessions 127.0.0.1/32 scram-sha-256"])
    with psycopg.connect(own.dsn()) as connection:
        connection.execute((PROJECT / "deploy/sql/create_monitor_role.sql").read_bytes())
        connection.execute(f"ALTER ROLE pgwatch_sessions PASSWORD '{PASSWORD}'".encode())
    return {**exported(), "PGHOST": "127.0.0.1", "PGPORT": str(own.port), "PGPASSWORD": PASSWORD}


def test_the_documented_command_watches_a_server(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path
) -> None:
    """It sees the server, is healthy, says nothing strange, and ends at SIGTERM."""
    with running(containers, daemon_image, tmp_path, *documented(), *of_tests(), env=server) as container:
        scrape, cold = container.first_scrape()
        assert scrape.value("up") == 1
        assert scrape.value("capacity_slots", scope="server")
        assert scrape.value("hidden_sessions") == 0
        assert container.health()[0] == 0, container.health()
        [resident] = [each for each in scrape.families if each.name == "process_resident_memory_bytes"]
        code, seconds = container.end()
    memory = resident.samples[0].value / 2**20
    print(f"\ncold start to the first scrape: {cold:.2f} s; end: {seconds:.2f} s; resident: {memory:.0f} MiB")
    assert memory < 128, "the limit in deploy/kubernetes and deploy/systemd"
    assert (code, "Traceback" in container.log.read_text()) == (0, False), container.log.read_text()
    assert seconds < 5


@pytest.mark.parametrize("user", ["12345:12345", "1000680000:0"])
def test_any_user_will_do(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path, user: str
) -> None:
    """A user id that the image has never heard of watches as well."""
    options = (*documented(), *of_tests(), f"--user={user}")
    with running(containers, daemon_image, tmp_path, *options, env=server) as container:
        assert container.first_scrape()[0].value("up") == 1
        assert container.health()[0] == 0, container.health()
        assert container.end()[0] == 0


def test_health_is_our_own_not_the_databases(containers: Machine, daemon_image: str, tmp_path: Path) -> None:
    """A server that is away is no reason to restart the container."""
    gone = {**exported(), "PGHOST": "127.0.0.1", "PGPORT": "1", "PGPASSWORD": PASSWORD}
    with running(containers, daemon_image, tmp_path, *documented(), *of_tests(), env=gone) as container:
        container.address()
        until(lambda: container.health()[0] == 0, within=20)
        assert container.end()[0] == 0


def test_a_frozen_daemon_is_unhealthy(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path
) -> None:
    """Its health check says so while the daemon does not answer, and takes it back."""
    with running(containers, daemon_image, tmp_path, *documented(), *of_tests(), env=server) as container:
        container.first_scrape()
        container.signal("STOP")
        assert container.health()[0] == 1
        container.signal("CONT")
        assert container.health()[0] == 0
        assert container.end()[0] == 0


def test_a_wrong_configuration_is_said_and_ends_it(containers: Machine, daemon_image: str) -> None:
    """Exit code 2, all mistakes with their places, and no secret."""
    wrong = ("--env=PGWATCH_SESSIONS_DSN=postgresql://u:hidden@@h/d", "--env=PGWATCH_SESSIONS_INTERVAL=often")
    code, said = once(containers, daemon_image, *wrong)
    assert code == 2
    assert "PGWATCH_SESSIONS_DSN" in said
    assert "PGWATCH_SESSIONS_INTERVAL" in said
    assert "hidden" not in said


def test_a_password_file_and_a_folder_for_recordings_are_mounted(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path
) -> None:
    """The one is read, the other written, by the image's own user on a read-only root file system."""
    secret, records = tmp_path / "password", tmp_path / "records"
    secret.write_text(f"{server.pop('PGPASSWORD')}\n")
    records.mkdir()
    records.chmod(0o777)
    mounted = (
        f"--volume={secret}:/run/secrets/password:ro",
        "--env=PGWATCH_SESSIONS_PASSWORD_FILE=/run/secrets/password",
        f"--volume={records}:/records",
        "--env=PGWATCH_SESSIONS_RECORD_DIR=/records",
    )
    with running(containers, daemon_image, tmp_path, *documented(), *of_tests(), *mounted, env=server) as container:
        assert container.first_scrape()[0].value("up") == 1
        until(lambda: any(file.stat().st_size for file in records.iterdir()))
        assert container.end()[0] == 0


def test_a_check_reports_from_a_container(containers: Machine, daemon_image: str, server: dict[str, str]) -> None:
    """As the documentation says of other commands."""
    code, said = once(
        containers,
        daemon_image,
        *(f"--env={name}={value}" for name, value in server.items()),
        words=["check", "--format", "json", "--interval", "100ms"],
    )
    assert code == 0, said
    assert json.loads(said)


@pytest.mark.parametrize(("words", "expected"), [(["--help"], "COMMAND"), (["--version"], __version__)])
def test_other_commands_work(containers: Machine, daemon_image: str, words: list[str], expected: str) -> None:
    """What is written after the image's name takes the place of `run`."""
    code, said = once(containers, daemon_image, words=words)
    assert (code, expected in said) == (0, True), said


def test_no_module_misses_what_was_left_out(containers: Machine, daemon_image: str) -> None:
    """All of our modules can be imported but the demonstration's, whose command says what it lacks."""
    ask = (
        "import importlib, pkgutil, pgwatch_sessions as p; print(sum(importlib.import_module(m.name) is not None"
        " for m in pkgutil.walk_packages(p.__path__, 'pgwatch_sessions.', onerror=print)"
        " if not m.name.startswith('pgwatch_sessions.demo') and not m.name.endswith('__main__')))"
    )
    code, said = once(containers, daemon_image, "--entrypoint=python", words=["-c", ask])
    assert (code, said.strip().isdecimal()) == (0, True), said
    assert int(said) > 80
    code, said = once(containers, daemon_image, words=["demo", "--once"])
    assert (code, "pip install 'pgwatch-sessions[demo]'" in said) == (2, True), said


def test_nothing_can_be_written(containers: Machine, daemon_image: str) -> None:
    """Even with a root file system that is not read-only, its user finds no folder to write to."""
    find = "import os; print(*(path for path, _, _ in os.walk('/') if os.access(path, os.W_OK)), sep='\\n')"
    found = containers.run(*containers.podman_run("--rm", "--entrypoint=python", daemon_image, "-c", find))
    assert [path for path in found.split() if not path.startswith(("/proc/", "/sys/", "/dev/"))] == []


def test_names_and_authorities_are_found(containers: Machine, daemon_image: str) -> None:
    """Host names resolve, and certificates of servers can be verified."""
    ask = (
        "import socket, ssl; trusted = ssl.create_default_context().get_ca_certs();"
        "print(socket.gethostbyname('localhost'), len(trusted) > 100)"
    )
    code, said = once(containers, daemon_image, "--entrypoint=python", words=["-c", ask])
    assert (code, said.strip()) == (0, "127.0.0.1 True")


def test_the_sample_service_serves(containers: Machine, service_image: str, database: Database, tmp_path: Path) -> None:
    """The target `service` answers on all addresses and needs no PostgreSQL of its own."""
    options = ("--name=orders-api", "--read-only", "--cap-drop=ALL", "--env=ORDERS_DSN")
    port = free_port()  # in place of 8080, which others may use
    with running(
        containers,
        service_image,
        tmp_path,
        *options,
        env={"ORDERS_DSN": database.dsn()},
        name="orders-api",
        words=[f"--port={port}"],
    ) as container:
        address = f"http://127.0.0.2:{port}/orders"
        assert until(lambda: answer_of(address, container), within=20)
        assert container.end()[0] in {0, 143}


def answer_of(address: str, container: Container) -> str:
    """Return a customer's orders; empty while the service does not listen."""
    assert container.process.poll() is None, container.log.read_text()
    try:
        return httpx.get(address, params={"customer": 1}, timeout=5).raise_for_status().text
    except httpx.ConnectError:
        return ""
