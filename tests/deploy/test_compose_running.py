"""Run the Compose example on this machine, with its files, commands and environments, but without containers."""

import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from pgwatch_sessions.demo.child_process import child_process
from pgwatch_sessions.settings.quantities import read_duration
from tests.deploy.compose import HostRun, initialise, load_services, server_settings
from tests.support.alert_rules import ROOT
from tests.support.servers import OwnPostgres, OwnPostgresFactory
from tests.support.waiting import until

SERVICES = load_services()
DAEMON = SERVICES["daemon"]
HOLD_LIMIT = read_duration(DAEMON["environment"]["PGWATCH_SESSIONS_HOLD_LIMIT"])
INTERVAL = read_duration(DAEMON["environment"]["PGWATCH_SESSIONS_INTERVAL"])
LIMIT = sum(int(SERVICES["orders"]["environment"][f"ORDERS_{part}"]) for part in ("POOL_SIZE", "MAX_OVERFLOW"))
#: The image's pg_hba.conf requires this for connections over the network.
SCRAM = "host all orders,pgwatch_sessions 127.0.0.1/32 scram-sha-256"
ALERT = {
    "labels": {"alertname": "DatabaseConnectionLeak", "severity": "critical", "server": "shop-db"},
    "annotations": {
        "summary": "orders-api leaks\nat /orders \x1b[2J",
        "page_url": "http://127.0.0.1:9488/",
        "runbook_url": "https://runbooks.example/DatabaseConnectionLeak.md",
    },
}
_ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


@pytest.fixture
def host_run(tmp_path: Path) -> HostRun:
    """Return a run with its secrets written."""
    made = HostRun(folder=tmp_path)
    made.make_secrets()
    return made


@pytest.fixture
def server(host_run: HostRun, own_postgres: OwnPostgresFactory) -> OwnPostgres:
    """Start the server, initialised by init.sql."""
    started = own_postgres(settings=server_settings(SERVICES["postgres"]), hba=[SCRAM])
    if not (started.server.cluster.bin_folder / "psql").exists():
        pytest.skip("this PostgreSQL has no psql; the embedded one has it: make test")
    done = initialise(host_run, SERVICES["postgres"], started)
    assert done.returncode == 0, done.stderr
    host_run.replacements["postgres:5432"] = f"127.0.0.1:{started.port}"
    return started


def leaks(daemon: httpx.Client) -> list[dict[str, Any]]:
    """Return the open findings."""
    found: list[dict[str, Any]] = daemon.get("/api/v1/leaks").raise_for_status().json()["leaks"]
    return found


@pytest.mark.usefixtures("server")
def test_a_leak_is_found_and_the_fix_closes_it(host_run: HostRun) -> None:
    """The leak is found in time and is critical before the limit is reached. The fix closes it."""
    with host_run.run_daemon(DAEMON) as daemon:
        assert host_run.is_healthy(DAEMON)
        with host_run.run_server(SERVICES["orders"], "orders") as (address, _):
            host_run.replacements.update({"http://orders:8080": address, "http://127.0.0.1:8080": address})
            assert host_run.is_healthy(SERVICES["orders"])
            with host_run.run_script(SERVICES["traffic"], "traffic") as log:
                assert leaks(daemon) == []
                [first] = until(lambda: leaks(daemon), within=3 * HOLD_LIMIT)
                assert (first["application"], first["site"], first["database"]) == ("orders-api", "/orders", "shop")
                assert first["server"] == DAEMON["environment"]["PGWATCH_SESSIONS_NAME"]
                assert first["severity"] == "notice"
                assert first["sessions"][0]["held_seconds"] < HOLD_LIMIT + 4 * INTERVAL
                until(lambda: leaks(daemon)[0]["severity"] == "critical", within=6 * HOLD_LIMIT)
                assert len(leaks(daemon)[0]["sessions"]) < LIMIT
                assert " failed" in until(log.read_text)
                assert host_run.is_healthy(SERVICES["traffic"])
        # Compose stops the service, so requests fail until it is back at the same address.
        host_run.replacements["--port=8080"] = f"--port={address.rpartition(':')[2]}"
        fixed = load_services(FIXED="1")["orders"]
        with host_run.run_server(fixed, "fixed"), host_run.run_script(SERVICES["traffic"], "traffic"):
            until(lambda: not any(each["sessions"] for each in leaks(daemon)), within=5 + 5 * INTERVAL)
            # It stays open for two hold limits without a session, while users still send the request that leaked.
            until(lambda: leaks(daemon) == [], within=5 * HOLD_LIMIT)
            assert httpx.get(f"{address}/pool").json()["fixed"] is True
    assert not host_run.is_healthy(DAEMON)
    assert not host_run.is_healthy(SERVICES["orders"])


def test_both_roles_are_created_with_limits(server: OwnPostgres) -> None:
    """The limit of the service's role is the size of its pool. Both roles have passwords."""
    roles = (
        "SELECT rolname, rolconnlimit, rolsuper, rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid"
        " WHERE rolname IN ('orders', 'pgwatch_sessions') ORDER BY 1"
    )
    with psycopg.connect(server.dsn()) as superuser:
        made = superuser.execute(roles).fetchall()
        assert made == [("orders", LIMIT, False, True), ("pgwatch_sessions", 3, False, True)]
        superuser.execute("SELECT 1 / (pg_has_role('pgwatch_sessions', 'pg_monitor', 'USAGE'))::int")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(server.dsn(user="orders", database="shop"))


def test_a_failing_script_does_not_show_passwords(host_run: HostRun, server: OwnPostgres) -> None:
    """Neither psql's output nor the server's log has a statement with a password."""
    again = initialise(host_run, SERVICES["postgres"], server)
    assert again.returncode != 0
    assert 'role "orders" already exists' in again.stderr
    result = again.stdout + again.stderr + server.server.cluster.log.read_text()
    assert "100%" not in result


@pytest.fixture
def webhook(host_run: HostRun) -> Iterator[tuple[str, Path]]:
    """Run the webhook, and yield its address and its log."""
    with host_run.run_server(SERVICES["webhook"], "webhook") as (address, log):
        host_run.replacements["http://127.0.0.1:9095"] = address
        yield address, log


def test_each_alert_becomes_one_line(host_run: HostRun, webhook: tuple[str, Path]) -> None:
    """The line has the receiver and the alert. Control characters and line ends in names become spaces."""
    address, log = webhook
    assert host_run.is_healthy(SERVICES["webhook"])
    firing, resolved = {"status": "firing", **ALERT}, {"status": "resolved", **ALERT}
    assert httpx.post(f"{address}/wake", json={"version": "4", "alerts": [firing, resolved]}).status_code == 204
    _, *lines = log.read_text().splitlines()
    text = "critical DatabaseConnectionLeak: orders-api leaks at /orders  [2J page: http://127.0.0.1:9488/ runbook:"
    assert [line[9:].partition(" https")[0] for line in lines] == [f"wake: FIRING {text}", f"wake: RESOLVED {text}"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"alerts": 1}', b'{"alerts": [{}]}', b'{"alerts": ["x"]}'])
def test_an_invalid_notification_is_rejected(webhook: tuple[str, Path], body: bytes) -> None:
    """It gets status 400 and prints nothing, and the next notification is accepted."""
    address, log = webhook
    assert httpx.post(f"{address}/wake", content=body).status_code == 400
    assert httpx.post(f"{address}/wake", json={"alerts": []}).status_code == 204
    assert len(log.read_text().splitlines()) == 1


def test_a_notification_that_is_too_long_is_rejected(webhook: tuple[str, Path]) -> None:
    """A wrong or huge Content-Length cannot make the webhook use up the memory."""
    url = urlsplit(webhook[0])
    for length in ("99999999999", "-1", "x", "²"):
        with closing(HTTPConnection(str(url.hostname), url.port, timeout=5)) as connection:
            connection.putrequest("POST", "/wake")
            connection.putheader("Content-Length", length.encode())
            connection.endheaders()
            assert connection.getresponse().status == 413


@pytest.mark.skipif(_ALERTMANAGER is None, reason="alertmanager is not installed: apt install prometheus-alertmanager")
def test_alertmanager_reaches_the_webhook(webhook: tuple[str, Path], tmp_path: Path) -> None:
    """The webhook prints the notification of a real Alertmanager; only the port and the waiting time differ."""
    address, log = webhook
    shipped = (ROOT / "deploy/alertmanager/alertmanager.yml").read_text()
    config = tmp_path / "alertmanager.yml"
    config.write_text(shipped.replace("http://127.0.0.1:9095", address).replace("group_wait: 10s", "group_wait: 0s"))
    command = [
        str(_ALERTMANAGER), f"--config.file={config}", f"--storage.path={tmp_path}/data", "--cluster.listen-address=",
        "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    alertmanager_log = tmp_path / "alertmanager.log"
    with child_process(command, log=alertmanager_log):
        [port] = until(lambda: re.findall(r'Listening on.* address="?127\.0\.0\.1:(\d+)', alertmanager_log.read_text()))
        httpx.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=[ALERT]).raise_for_status()
        assert "wake: FIRING critical DatabaseConnectionLeak" in until(lambda: log.read_text().partition("\n")[2])
