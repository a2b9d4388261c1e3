"""What the daemon says to systemd, read at a real socket."""

import contextlib
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.systemd import Systemd
from tests.support.daemons import daemon


@contextlib.contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """Receive at this address, where `@` stands for the zero byte of an abstract socket, as in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address.replace("@", "\0", 1))
        server.settimeout(20)
        yield server


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an address as systemd gives it."""
    return str(tmp_path / "notify") if request.param == "path" else f"@pgwatch-sessions-{secrets.token_hex(8)}"


def test_systemd_hears_that_the_daemon_is_ready_works_and_stops(postgres: Postgres, address: str) -> None:
    """It is ready when it answers and polls. Then it reports once a second until it is told to end."""
    variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "90000000"}
    with manager(address) as server, daemon(dsn=postgres.dsn(), variables=variables) as watching:
        assert server.recv(64) == b"READY=1"
        assert watching.get("/healthz").status_code == 200
        assert [server.recv(64) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        watching.end_by(signal.SIGTERM)
        messages = iter(lambda: server.recv(64), b"STOPPING=1")
        assert set(messages) <= {b"WATCHDOG=1"}


@pytest.mark.parametrize(
    ("variables", "heard"),
    [
        ({}, {b"READY=1", b"STOPPING=1"}),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "7"}, {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "8"}, {b"READY=1", b"STOPPING=1"}),
    ],
    ids=["no watchdog", "watchdog", "another process's watchdog"],
)
def test_the_watchdog_hears_only_what_it_asked_for(address: str, variables: dict[str, str], heard: set[bytes]) -> None:
    """A child that inherits the variables of its parent is not watched."""
    with manager(address) as server:
        systemd = Systemd({"NOTIFY_SOCKET": address, **variables}, 7)
        for say in (systemd.ready, systemd.alive, systemd.stopping):
            say()
        assert {server.recv(64) for _ in heard} == heard
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(64)


@pytest.mark.parametrize("variables", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1"}])
def test_without_systemd_nothing_is_said(variables: dict[str, str]) -> None:
    """A manager that is not there is no error."""
    systemd = Systemd(variables, 7)
    systemd.ready()
    systemd.alive()
    systemd.stopping()
