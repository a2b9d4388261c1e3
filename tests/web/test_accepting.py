"""File descriptors run out in a real daemon: clients wait, the log does not fill, and polls go on."""

import contextlib
import resource
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pgwatch_sessions.web.crowd import Refused
from tests.support.daemons import Daemon, daemon
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it counts open files in /proc, and limits those of a process"),
]


@contextlib.contextmanager
def flood(watching: Daemon) -> Iterator[None]:
    """Inside, hold a hundred connections, and open new ones without end."""
    stop = threading.Event()
    held: deque[socket.socket] = deque()

    def connect() -> None:
        while not stop.wait(0.002):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", port), timeout=0.2))
            if len(held) > 100:
                held.popleft().close()

    port = int(watching.address.rpartition(":")[2])
    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for each in held:
            each.close()


def open_files(watching: Daemon) -> int:
    """Return how many files the daemon has open."""
    return len(list(Path(f"/proc/{watching.process.pid}/fd").iterdir()))


def limit_descriptors(watching: Daemon, *, free: int) -> int:
    """Let the daemon open so many files more; return how many it may have then."""
    limit = open_files(watching) + free
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(watching.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
    return limit


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
def test_a_flood_of_clients_leaves_descriptors_for_postgresql(own_postgres: OwnPostgresFactory) -> None:
    """A server that comes back is polled at once, although clients take every connection they can get."""
    server = own_postgres()
    with daemon(dsn=server.dsn(), timeout="1s") as watching:
        watching.scrape_when_up()
        limit = limit_descriptors(watching, free=20)
        with flood(watching):
            server.stop()
            until(lambda: len(watching.events("server_down")) >= 1)
            until(lambda: watching.events("http_refused"))
            # A connection that gives way is closed some turns of the loop later, so for a moment none may be free.
            assert sum(open_files(watching) < limit for _ in range(200)) > 150
            server.start()
            until(lambda: len(watching.events("server_up")) == 2)
        refused = watching.scrape_when(lambda scrape: scrape.value("up") == 1)
        assert (refused.value("http_connections_refused_total", reason="no_descriptors") or 0) > 0
        (said,) = watching.events("http_refused")
        assert said["level"] == "error"
        assert f"file descriptors run out (limit: {said['descriptors']})" in said["message"]
        assert len(watching.log.read_text().splitlines()) < 20


def test_without_a_free_descriptor_accepting_pauses() -> None:
    """It is said once. Clients that wait are answered when there are descriptors again."""
    with daemon(dsn="postgresql://u@127.0.0.1:1/x") as watching, contextlib.ExitStack() as stack:
        until(lambda: watching.events("server_down"))
        limit_descriptors(watching, free=-1)
        port = int(watching.address.rpartition(":")[2])
        for _ in range(50):
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port))))
        until(lambda: watching.events("http_refused"))
        limit_descriptors(watching, free=100)
        watching.scrape_when(
            lambda scrape: (scrape.value("http_connections_refused_total", reason="no_descriptors") or 0) > 0
        )
        assert len(watching.events("http_refused")) == 1


def test_that_descriptors_run_out_is_said_again_after_a_quiet_minute() -> None:
    """Every refusal is counted, and only the first of a while is logged."""
    refused = Refused()
    with capture_logs() as logs:
        for now in (5.0, 6.0, 64.0, 123.0, 184.0):
            refused.no_descriptors(now=now)
    assert refused.counts == {"too_many": 0, "no_descriptors": 5}
    assert [entry["event"] for entry in logs] == ["http_refused"] * 2
