"""How the daemon ends as a process: told to by a signal, by a fault of its own, or before it began."""

import contextlib
import signal
import socket
from pathlib import Path

import httpx
import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.conftest import OwnPostgresFactory
from tests.daemons import Daemon, daemon, own_sessions, through
from tests.programs import environment, finished
from tests.proxy import proxy_to
from tests.waiting import until

#: What an orchestrator sees when all is in order.
ENDED_IN_ORDER = 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_in_order(postgres: Postgres, number: signal.Signals) -> None:
    """Exit 0 within 2 s, the session on the server closed, and both the start and the end in the log."""
    with daemon(dsn=postgres.dsn()) as watching:
        watching.scrape_when_up()
        code, seconds = watching.end_by(number)
        assert (code, seconds < 2) == (ENDED_IN_ORDER, True), seconds
        assert len(watching.events("stopped")) == 1
        until(lambda: own_sessions(postgres.dsn()) == 0, within=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_in_the_middle_of_a_look_that_hangs(own_postgres: OwnPostgresFactory, number: signal.Signals) -> None:
    """Nobody waits for a server that does not answer, and no session is there when it does again."""
    server = own_postgres()
    with daemon(dsn=server.dsn(), timeout="30s") as watching:
        watching.scrape_when_up()
        server.freeze()
        try:
            watching.scrape_when(lambda scrape: scrape.silence() > 0.5)
            code, seconds = watching.end_by(number)
        finally:
            server.thaw()
    assert (code, seconds < 2) == (ENDED_IN_ORDER, True), seconds
    until(lambda: own_sessions(server.dsn()) == 0)


def test_a_signal_between_two_looks_at_a_server_that_vanished(postgres: Postgres) -> None:
    """The goodbye to a black hole has a deadline of its own."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        with daemon(dsn=through(proxy), interval="1h") as watching:
            watching.scrape_when_up()
            proxy.black_hole()
            code, seconds = watching.end_by(signal.SIGTERM)
        proxy.resume()
        until(lambda: proxy.clients == 0)
    assert (code, seconds < 2) == (ENDED_IN_ORDER, True), seconds
    until(lambda: own_sessions(postgres.dsn()) == 0)


def test_a_signal_while_connecting(postgres: Postgres) -> None:
    """A first connection that hangs is given up."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        proxy.black_hole()
        with daemon(dsn=through(proxy), timeout="30s") as watching:
            until(lambda: proxy.clients == 1)
            code, seconds = watching.end_by(signal.SIGTERM)
        proxy.resume()
        until(lambda: proxy.clients == 0)
    assert (code, seconds < 2) == (ENDED_IN_ORDER, True), seconds
    until(lambda: own_sessions(postgres.dsn()) == 0)


def test_a_signal_while_hostile_clients_are_connected(postgres: Postgres) -> None:
    """Clients that say nothing, half of a request, or read no answer do not keep it."""
    with daemon(dsn=postgres.dsn()) as watching, contextlib.ExitStack() as stack:
        watching.scrape_when_up()
        for said in [b"", b"GET /metrics HTTP/1.1\r\nHost:"] * 5:
            stack.enter_context(connected(watching)).sendall(said)
        send_without_reading(stack.enter_context(connected(watching)))
        watching.scrape()
        code, seconds = watching.end_by(signal.SIGTERM)
        assert (code, seconds < 2) == (ENDED_IN_ORDER, True), seconds
    until(lambda: own_sessions(postgres.dsn()) == 0)


def connected(watching: Daemon) -> socket.socket:
    """Return a client's socket with little room for answers."""
    address = httpx.URL(watching.address)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.host, address.port))
    return client


def send_without_reading(client: socket.socket) -> None:
    """Send requests until nothing takes them any more: every buffer on the way is full."""
    client.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)


def test_a_fault_of_the_program_ends_it_with_its_traceback(postgres: Postgres, tmp_path: Path) -> None:
    """A fault in judging what was seen is nobody's answer: exit 1, the traceback, and no session left.

    The program is started with a judging that fails.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import pgwatch_sessions.poller\n"
        "def advance(*args, **options):\n"
        "    raise LookupError('a fault of our own')\n"
        "pgwatch_sessions.poller.advance = advance\n"
    )
    variables = {**environment(DSN=postgres.dsn(), LISTEN="127.0.0.1:0", INTERVAL="100ms"), "PYTHONPATH": str(tmp_path)}
    ended = finished("run", env=variables)
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback (most recent call last)") == 1
    assert "LookupError: a fault of our own" in ended.stderr
    until(lambda: own_sessions(postgres.dsn()) == 0)


def test_a_port_in_use_is_a_usage_error_with_its_address() -> None:
    """Exit 2, one line, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = finished("run", "--listen", place)
    assert ended.returncode == 2
    reason = f"cannot listen on {place}: Address already in use; choose another address with --listen"
    assert ended.stderr == f"pgwatch-sessions: error: {reason}\n"
