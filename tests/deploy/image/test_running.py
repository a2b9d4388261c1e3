"""Run the images, hardened as documented, against a real server."""

import json
from pathlib import Path

import httpx
import psycopg
import pytest

from pgwatch_sessions import __version__
from tests.deploy.image.building import PROJECT
from tests.deploy.image.machine import Machine
from tests.deploy.image.running import Container, documented_options, documented_variables, run_once, running
from tests.support.ports import free_port
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.waiting import until

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

PASSWORD = "p@ss: word/?"


def options_for_tests() -> tuple[str, ...]:
    """Return options for the server's port, a free address on the machine's network, and a short interval."""
    listen = f"127.0.0.1:{free_port()}"  # chosen here, because the health check needs it
    return "--env=PGPORT", f"--env=PGWATCH_SESSIONS_LISTEN={listen}", "--env=PGWATCH_SESSIONS_INTERVAL=100ms"


@pytest.fixture
def server(own_postgres: OwnPostgresFactory) -> dict[str, str]:
    """Start a server with the role of deploy/sql, and return the documented variables for it."""
    own = own_postgres(hba=["host all pgwatch_sessions 127.0.0.1/32 scram-sha-256"])
    with psycopg.connect(own.dsn()) as connection:
        connection.execute((PROJECT / "deploy/sql/create_monitor_role.sql").read_bytes())
        connection.execute(f"ALTER ROLE pgwatch_sessions PASSWORD '{PASSWORD}'".encode())
    return {**documented_variables(), "PGHOST": "127.0.0.1", "PGPORT": str(own.port), "PGPASSWORD": PASSWORD}


def test_the_documented_command_monitors_a_server(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path
) -> None:
    """The daemon polls the server, is healthy, logs no traceback, and ends at SIGTERM."""
    with running(
        containers, daemon_image, tmp_path, *documented_options(), *options_for_tests(), env=server
    ) as container:
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
def test_any_user_id_works(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path, user: str
) -> None:
    """The user id does not have to exist in the image."""
    options = (*documented_options(), *options_for_tests(), f"--user={user}")
    with running(containers, daemon_image, tmp_path, *options, env=server) as container:
        assert container.first_scrape()[0].value("up") == 1
        assert container.health()[0] == 0, container.health()
        assert container.end()[0] == 0


def test_the_health_check_does_not_depend_on_the_database(
    containers: Machine, daemon_image: str, tmp_path: Path
) -> None:
    """If the server is down, restarting the container would not help."""
    unreachable = {**documented_variables(), "PGHOST": "127.0.0.1", "PGPORT": "1", "PGPASSWORD": PASSWORD}
    with running(
        containers, daemon_image, tmp_path, *documented_options(), *options_for_tests(), env=unreachable
    ) as container:
        container.address()
        until(lambda: container.health()[0] == 0, within=20)
        assert container.end()[0] == 0


def test_a_frozen_daemon_is_unhealthy(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path
) -> None:
    """The health check fails while the daemon is stopped, and passes again afterwards."""
    with running(
        containers, daemon_image, tmp_path, *documented_options(), *options_for_tests(), env=server
    ) as container:
        container.first_scrape()
        container.signal("STOP")
        assert container.health()[0] == 1
        container.signal("CONT")
        assert container.health()[0] == 0
        assert container.end()[0] == 0


def test_a_wrong_configuration_is_reported_and_ends_the_container(containers: Machine, daemon_image: str) -> None:
    """The exit code is 2. The output lists every error with its place, and no secret."""
    wrong = ("--env=PGWATCH_SESSIONS_DSN=postgresql://u:hidden@@h/d", "--env=PGWATCH_SESSIONS_INTERVAL=often")
    code, result = run_once(containers, daemon_image, *wrong)
    assert code == 2
    assert "PGWATCH_SESSIONS_DSN" in result
    assert "PGWATCH_SESSIONS_INTERVAL" in result
    assert "hidden" not in result


def test_a_password_file_and_a_folder_for_recordings_are_mounted(
    containers: Machine, daemon_image: str, server: dict[str, str], tmp_path: Path
) -> None:
    """The image's own user can read the password and write recordings, with a read-only root file system."""
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
    with running(
        containers, daemon_image, tmp_path, *documented_options(), *options_for_tests(), *mounted, env=server
    ) as container:
        assert container.first_scrape()[0].value("up") == 1
        until(lambda: any(file.stat().st_size for file in records.iterdir()))
        assert container.end()[0] == 0


def test_check_works_in_a_container(containers: Machine, daemon_image: str, server: dict[str, str]) -> None:
    """It prints a report as JSON."""
    code, result = run_once(
        containers,
        daemon_image,
        *(f"--env={name}={value}" for name, value in server.items()),
        words=["check", "--format", "json", "--interval", "100ms"],
    )
    assert code == 0, result
    assert json.loads(result)


@pytest.mark.parametrize(("words", "expected"), [(["--help"], "COMMAND"), (["--version"], __version__)])
def test_other_commands_work(containers: Machine, daemon_image: str, words: list[str], expected: str) -> None:
    """Words after the image's name replace `run`."""
    code, result = run_once(containers, daemon_image, words=words)
    assert (code, expected in result) == (0, True), result


def test_every_module_can_be_imported(containers: Machine, daemon_image: str) -> None:
    """This excludes the modules that need an extra: of the demo, of `top`, and for applications."""
    script = (
        "import importlib, pkgutil, pgwatch_sessions as p; print(sum(importlib.import_module(m.name) is not None"
        " for m in pkgutil.walk_packages(p.__path__, 'pgwatch_sessions.', onerror=print)"
        " if not m.name.startswith(('pgwatch_sessions.demo', 'pgwatch_sessions.pools'))"
        " and not m.name.endswith(('.__main__', '.top.terminal_app', '.top.running'))))"
    )
    code, result = run_once(containers, daemon_image, "--entrypoint=python", words=["-c", script])
    assert (code, result.strip().isdecimal()) == (0, True), result
    assert int(result) > 80
    code, result = run_once(containers, daemon_image, words=["demo", "--once"])
    assert (code, "pip install 'pgwatch-sessions[demo]'" in result) == (2, True), result


def test_no_folder_is_writable(containers: Machine, daemon_image: str) -> None:
    """Even without a read-only root file system, the image's user cannot write to any folder."""
    find = "import os; print(*(path for path, _, _ in os.walk('/') if os.access(path, os.W_OK)), sep='\\n')"
    found = containers.run(*containers.podman_run("--rm", "--entrypoint=python", daemon_image, "-c", find))
    assert [path for path in found.split() if not path.startswith(("/proc/", "/sys/", "/dev/"))] == []


def test_host_names_and_certificate_authorities_work(containers: Machine, daemon_image: str) -> None:
    """Host names can be resolved, and certificates of servers can be verified."""
    script = (
        "import socket, ssl; trusted = ssl.create_default_context().get_ca_certs();"
        "print(socket.gethostbyname('localhost'), len(trusted) > 100)"
    )
    code, result = run_once(containers, daemon_image, "--entrypoint=python", words=["-c", script])
    assert (code, result.strip()) == (0, "127.0.0.1 True")


def test_the_sample_service_serves(containers: Machine, service_image: str, database: Database, tmp_path: Path) -> None:
    """The target `service` listens on all addresses, and needs no embedded PostgreSQL."""
    options = ("--name=orders-api", "--read-only", "--cap-drop=ALL", "--env=ORDERS_DSN")
    port = free_port()  # instead of 8080, which may be in use
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
        assert until(lambda: orders_page(address, container), within=20)
        assert container.end()[0] in {0, 143}


def orders_page(address: str, container: Container) -> str:
    """Return a customer's orders; empty if the service does not listen yet."""
    assert container.process.poll() is None, container.log.read_text()
    try:
        return httpx.get(address, params={"customer": 1}, timeout=5).raise_for_status().text
    except httpx.ConnectError:
        return ""
