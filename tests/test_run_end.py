"""How the daemon ends: by a signal, by an error in the program, or before it has started.

`make bench` measures how long that takes.
"""

import contextlib
import signal
import socket
from pathlib import Path

import httpx
import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import Daemon, daemon, own_sessions, through
from tests.support.programs import environment, finished
from tests.support.proxy import proxy_to
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until

#: The exit code after SIGTERM or SIGINT.
ENDED_IN_ORDER = 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_daemon(postgres: Postgres, number: signal.Signals) -> None:
    """The exit code is 0 within 2 s, the session on the server is closed, and the log has the end."""
    with daemon(dsn=postgres.dsn()) as watching:
        watching.scrape_when_up()
        code = watching.end_by(number)
        assert code == ENDED_IN_ORDER
        assert len(watching.events("stopped")) == 1
        until(lambda: own_sessions(postgres.dsn()) == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_in_the_middle_of_a_poll_that_hangs(own_postgres: OwnPostgresFactory, number: signal.Signals) -> None:
    """The daemon does not wait for a server that does not answer, and leaves no session on it."""
    server = own_postgres()
    with daemon(dsn=server.dsn(), timeout="30s") as watching:
        watching.scrape_when_up()
        server.freeze()
        try:
            watching.scrape_when(lambda scrape: scrape.silence() > 0.5)
            code = watching.end_by(number)
        finally:
            server.thaw()
    assert code == ENDED_IN_ORDER
    until(lambda: own_sessions(server.dsn()) == 0)


def test_a_signal_between_two_polls_at_a_server_that_vanished(postgres: Postgres) -> None:
    """Closing the connection has a deadline."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        with daemon(dsn=through(proxy), interval="1h") as watching:
            watching.scrape_when_up()
            proxy.black_hole()
            code = watching.end_by(signal.SIGTERM)
        proxy.resume()
        until(lambda: proxy.clients == 0)
    assert code == ENDED_IN_ORDER
    until(lambda: own_sessions(postgres.dsn()) == 0)


def test_a_signal_while_connecting(postgres: Postgres) -> None:
    """The daemon does not wait for a connect that hangs."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        proxy.black_hole()
        with daemon(dsn=through(proxy), timeout="30s") as watching:
            until(lambda: proxy.clients == 1)
            code = watching.end_by(signal.SIGTERM)
        proxy.resume()
        until(lambda: proxy.clients == 0)
    assert code == ENDED_IN_ORDER
    until(lambda: own_sessions(postgres.dsn()) == 0)


def test_a_signal_while_hostile_http_clients_are_connected(postgres: Postgres) -> None:
    """Clients that send nothing or half of a request, or read no answer, do not delay the end."""
    with daemon(dsn=postgres.dsn()) as watching, contextlib.ExitStack() as stack:
        watching.scrape_when_up()
        for sent in [b"", b"GET /metrics HTTP/1.1\r\nHost:"] * 5:
            stack.enter_context(connected(watching)).sendall(sent)
        send_without_reading(stack.enter_context(connected(watching)))
        watching.scrape()
        code = watching.end_by(signal.SIGTERM)
        assert code == ENDED_IN_ORDER
    until(lambda: own_sessions(postgres.dsn()) == 0)


def connected(watching: Daemon) -> socket.socket:
    """Return the socket of a client with a small receive buffer."""
    address = httpx.URL(watching.address)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.host, address.port))
    return client


def send_without_reading(client: socket.socket) -> None:
    """Send requests until every buffer on the way is full."""
    client.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)


def test_an_error_in_the_program_ends_it_with_a_traceback(postgres: Postgres, tmp_path: Path) -> None:
    """The exit code is 1, standard error has the traceback once, and no session is left.

    The program is started with an `advance` that raises.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import pgwatch_sessions.poller\n"
        "def advance(*args, **options):\n"
        "    raise LookupError('an error of our own')\n"
        "pgwatch_sessions.poller.advance = advance\n"
    )
    variables = {**environment(DSN=postgres.dsn(), LISTEN="127.0.0.1:0", INTERVAL="100ms"), "PYTHONPATH": str(tmp_path)}
    ended = finished("run", env=variables)
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback (most recent call last)") == 1
    assert "LookupError: an error of our own" in ended.stderr
    until(lambda: own_sessions(postgres.dsn()) == 0)


def test_a_port_in_use_is_exit_2() -> None:
    """The error is one line with the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = finished("run", "--listen", place)
    assert ended.returncode == 2
    reason = f"cannot listen on {place}: Address already in use; choose another address with --listen"
    assert ended.stderr == f"pgwatch-sessions: error: {reason}\n"
