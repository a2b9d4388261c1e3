"""The story of the Compose example, played on this machine: its files, commands and environments, no containers."""

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
from tests.alerts.rules import ROOT
from tests.deploy.compose import Stage, initialise, server_settings, services
from tests.support.servers import OwnPostgres, OwnPostgresFactory
from tests.support.waiting import until

SERVICES = services()
DAEMON = SERVICES["daemon"]
HOLD_LIMIT = read_duration(DAEMON["environment"]["PGWATCH_SESSIONS_HOLD_LIMIT"])
INTERVAL = read_duration(DAEMON["environment"]["PGWATCH_SESSIONS_INTERVAL"])
LIMIT = sum(int(SERVICES["orders"]["environment"][f"ORDERS_{part}"]) for part in ("POOL_SIZE", "MAX_OVERFLOW"))
#: As the image's pg_hba.conf asks of everybody who comes over the network.
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
def stage(tmp_path: Path) -> Stage:
    """Return a stage with its secrets made."""
    made = Stage(folder=tmp_path)
    made.make_secrets()
    return made


@pytest.fixture
def server(stage: Stage, own_postgres: OwnPostgresFactory) -> OwnPostgres:
    """Return the server, initialised by init.sql."""
    started = own_postgres(settings=server_settings(SERVICES["postgres"]), hba=[SCRAM])
    if not (started.server.cluster.bin_folder / "psql").exists():
        pytest.skip("this PostgreSQL has no psql; the embedded one has: make test")
    done = initialise(stage, SERVICES["postgres"], started)
    assert done.returncode == 0, done.stderr
    stage.stand_ins["postgres:5432"] = f"127.0.0.1:{started.port}"
    return started


def leaks(daemon: httpx.Client) -> list[dict[str, Any]]:
    """Return the open findings."""
    found: list[dict[str, Any]] = daemon.get("/api/v1/leaks").raise_for_status().json()["leaks"]
    return found


@pytest.mark.usefixtures("server")
def test_the_story_from_the_leak_to_the_fix(stage: Stage) -> None:
    """The leak is named in time, critical while there is room, and closed by the fix, which leaks no more."""
    with stage.watching(DAEMON) as daemon:
        assert stage.is_healthy(DAEMON)
        with stage.listening(SERVICES["orders"], "orders") as (address, _):
            stage.stand_ins.update({"http://orders:8080": address, "http://127.0.0.1:8080": address})
            assert stage.is_healthy(SERVICES["orders"])
            with stage.running(SERVICES["traffic"], "traffic") as said:
                assert leaks(daemon) == []
                [first] = until(lambda: leaks(daemon), within=3 * HOLD_LIMIT)
                assert (first["application"], first["site"], first["database"]) == ("orders-api", "/orders", "shop")
                assert first["server"] == DAEMON["environment"]["PGWATCH_SESSIONS_NAME"]
                assert first["severity"] == "notice"
                assert first["sessions"][0]["held_seconds"] < HOLD_LIMIT + 4 * INTERVAL
                until(lambda: leaks(daemon)[0]["severity"] == "critical", within=6 * HOLD_LIMIT)
                assert len(leaks(daemon)[0]["sessions"]) < LIMIT
                assert " failed" in until(said.read_text)
                assert stage.is_healthy(SERVICES["traffic"])
        # Compose stops the service, and its users' requests fail until it is back at the same address.
        stage.stand_ins["--port=8080"] = f"--port={address.rpartition(':')[2]}"
        fixed = services(FIXED="1")["orders"]
        with stage.listening(fixed, "fixed"), stage.running(SERVICES["traffic"], "traffic"):
            until(lambda: not any(each["sessions"] for each in leaks(daemon)), within=5 + 5 * INTERVAL)
            # It stays open for two limits without a session, in which the users go on asking for what leaked.
            until(lambda: leaks(daemon) == [], within=5 * HOLD_LIMIT)
            assert httpx.get(f"{address}/pool").json()["fixed"] is True
    assert not stage.is_healthy(DAEMON)
    assert not stage.is_healthy(SERVICES["orders"])


def test_both_roles_are_made_and_bounded(server: OwnPostgres) -> None:
    """The limit of the service's role is its pool; the monitoring role is that of deploy/sql; both have passwords."""
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


def test_a_failing_script_tells_no_password(stage: Stage, server: OwnPostgres) -> None:
    """Neither psql nor the server's log shows a statement that holds one."""
    again = initialise(stage, SERVICES["postgres"], server)
    assert again.returncode != 0
    assert 'role "orders" already exists' in again.stderr
    said = again.stdout + again.stderr + server.server.cluster.log.read_text()
    assert "100%" not in said


@pytest.fixture
def webhook(stage: Stage) -> Iterator[tuple[str, Path]]:
    """Run the receiver of messages; its address and what it prints."""
    with stage.listening(SERVICES["webhook"], "webhook") as (address, log):
        stage.stand_ins["http://127.0.0.1:9095"] = address
        yield address, log


def test_a_message_becomes_one_line(stage: Stage, webhook: tuple[str, Path]) -> None:
    """The line says who is told what, whatever the names in it hold."""
    address, log = webhook
    assert stage.is_healthy(SERVICES["webhook"])
    firing, over = {"status": "firing", **ALERT}, {"status": "resolved", **ALERT}
    assert httpx.post(f"{address}/wake", json={"version": "4", "alerts": [firing, over]}).status_code == 204
    _, *lines = log.read_text().splitlines()
    told = "critical DatabaseConnectionLeak: orders-api leaks at /orders  [2J page: http://127.0.0.1:9488/ runbook:"
    assert [line[9:].partition(" https")[0] for line in lines] == [f"wake: FIRING {told}", f"wake: RESOLVED {told}"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"alerts": 1}', b'{"alerts": [{}]}', b'{"alerts": ["x"]}'])
def test_what_is_no_message_is_refused(webhook: tuple[str, Path], body: bytes) -> None:
    """With a status, without a line, and the next message is taken."""
    address, log = webhook
    assert httpx.post(f"{address}/wake", content=body).status_code == 400
    assert httpx.post(f"{address}/wake", json={"alerts": []}).status_code == 204
    assert len(log.read_text().splitlines()) == 1


def test_a_message_without_an_end_is_refused(webhook: tuple[str, Path]) -> None:
    """Nobody can fill the memory."""
    place = urlsplit(webhook[0])
    for length in ("99999999999", "-1", "x", "²"):
        with closing(HTTPConnection(str(place.hostname), place.port, timeout=5)) as connection:
            connection.putrequest("POST", "/wake")
            connection.putheader("Content-Length", length.encode())
            connection.endheaders()
            assert connection.getresponse().status == 413


@pytest.mark.skipif(_ALERTMANAGER is None, reason="alertmanager is not installed: apt install prometheus-alertmanager")
def test_alertmanager_reaches_the_receiver(webhook: tuple[str, Path], tmp_path: Path) -> None:
    """A real Alertmanager with the shipped configuration, but for port and waiting, sends what is understood."""
    address, log = webhook
    shipped = (ROOT / "deploy/alertmanager/alertmanager.yml").read_text()
    config = tmp_path / "alertmanager.yml"
    config.write_text(shipped.replace("http://127.0.0.1:9095", address).replace("group_wait: 10s", "group_wait: 0s"))
    command = [
        str(_ALERTMANAGER), f"--config.file={config}", f"--storage.path={tmp_path}/data", "--cluster.listen-address=",
        "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    theirs = tmp_path / "alertmanager.log"
    with child_process(command, log=theirs):
        [port] = until(lambda: re.findall(r'Listening on.* address="?127\.0\.0\.1:(\d+)', theirs.read_text()))
        httpx.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=[ALERT]).raise_for_status()
        assert "wake: FIRING critical DatabaseConnectionLeak" in until(lambda: log.read_text().partition("\n")[2])
