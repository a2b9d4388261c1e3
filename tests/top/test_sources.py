"""Both sources of the live view with real servers: the servers themselves, and a running daemon."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.top.daemon_api import DaemonApi, LoginError, SourceError
from pgwatch_sessions.top.sources import PolledServers, RunningDaemon, Source
from pgwatch_sessions.top.view import ClientId, View
from tests.support.answering import answering
from tests.support.certificates import hashed, write_web_config
from tests.support.daemons import daemon, own_sessions
from tests.support.ports import free_port, port_without_answer
from tests.support.servers import Database
from tests.support.situations import idle_in_transaction
from tests.support.waiting import until

PATIENCE = 15.0


@asynccontextmanager
async def polled(*targets: Target, patience: float = 5.0) -> AsyncIterator[Source]:
    """Poll servers with a hold limit of a second."""
    connections = {
        target.name: HeldConnection(target, timeout=5, parse=parse_statement, jitter=lambda limit: limit)
        for target in targets
    }
    source = PolledServers(connections, Policy(hold_limit=1.0), patience=patience)
    try:
        yield source
    finally:
        await source.close()


async def first(source: Source, condition: Callable[[View], bool], opened: ClientId | None = None) -> View:
    """Return the first view of which the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            view = await source.view(opened)
            if condition(view):
                return view
            await asyncio.sleep(0.1)


async def test_both_sources_show_the_same(database: Database) -> None:
    """A finding with its sessions, limits, and the sessions of a client."""
    client = Client(database.name, "postgres", "orders-api")
    with (
        idle_in_transaction(database.dsn(application_name="orders-api")) as pid,
        daemon("--hold-limit", "1s", "--name", "shop-db", dsn=database.dsn()) as running,
    ):
        opened = ClientId("shop-db", client)

        def has_it(view: View) -> bool:
            return any(finding.client == client for finding in view.findings)

        async with polled(Target(name="shop-db", dsn=database.dsn())) as source:
            direct = await first(source, has_it, opened)
        remote = await first(RunningDaemon(DaemonApi(running.address)), has_it, opened)
    for view in (direct, remote):
        (finding,) = [each for each in view.findings if each.client == client]
        assert [session.pid for session in finding.sessions] == [pid]
        assert f"({pid}, " in "".join(finding.terminate)
        assert [session.pid for session in view.opened_sessions] == [pid]
        (server,) = view.servers
        assert server.limits[0].name == "the server"
        (shown,) = [each for each in server.clients if each.id == opened]
        assert (shown.sessions, shown.in_transaction) == (1, 1)
    until(lambda: own_sessions(database.dsn()) == 0)


async def test_a_server_that_does_not_answer_delays_no_other(database: Database) -> None:
    """The view comes after the patience, with what is known then."""
    with port_without_answer() as port:
        silent = Target(name="silent", dsn=f"postgresql://postgres@127.0.0.1:{port}/postgres")
        async with polled(Target(name="good", dsn=database.dsn()), silent, patience=0.5) as source:
            begun = time.monotonic()
            view = await first(source, lambda view: view.servers[0].up is True)
            assert time.monotonic() - begun < 4.5
            assert view.servers[1].up is None


def _answer(status: int, body: bytes, **headers: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send the answer."""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    return Handler


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, b"no", "status 404; is it pgwatch-sessions?"),
        (200, b"<html>", "is no JSON"),
        (200, b'{"servers": []}', "documents of another form"),
        (200, b"[]", "documents of another form"),
        (401, b"", "requires a login"),
    ],
)
async def test_another_answer_is_named(status: int, body: bytes, error: str) -> None:
    """The error says what is wrong and where."""
    with answering(_answer(status, body)) as address:
        with pytest.raises(SourceError, match=error) as raised:
            await RunningDaemon(DaemonApi(f"http://{address}")).view(None)
        assert f"http://{address}" in str(raised.value)


async def test_no_answer_is_named() -> None:
    """With the address, and the system's reason."""
    with pytest.raises(SourceError, match=r"http://127.0.0.1:\d+ does not answer: connection refused"):
        await RunningDaemon(DaemonApi(f"127.0.0.1:{free_port()}")).view(None)


async def test_tls_and_logins(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate must be signed by an authority of the system or of SSL_CERT_FILE; a wrong login is named."""
    config = write_web_config(tmp_path, users={"ops": hashed("hunter2")})
    with daemon("--web-config", str(config), dsn=database.dsn()) as running:
        url = running.address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # not listened on
        with pytest.raises(SourceError, match="TLS: "):
            await RunningDaemon(DaemonApi(url, "ops:hunter2")).view(None)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert ssl.get_default_verify_paths().cafile == str(tmp_path / "ca.pem")
        view = await RunningDaemon(DaemonApi(url, "ops:hunter2")).view(None)
        assert len(view.servers) == 1
        with pytest.raises(LoginError, match="rejects this login") as raised:
            await RunningDaemon(DaemonApi(url, "ops:hunter3")).view(None)
        assert "hunter3" not in str(raised.value)


@pytest.mark.parametrize("url", ["ftp://db", "http://", "http://ops:hunter2@db"])
def test_a_wrong_url_is_refused(url: str) -> None:
    """Without showing a password."""
    with pytest.raises(ValueError, match="URL") as raised:
        DaemonApi(url)
    assert "hunter2" not in str(raised.value)
