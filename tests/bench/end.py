"""How long the daemon takes to end after SIGTERM, in the situations that could hold it up."""

import contextlib
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from pgwatch_sessions.demo.postgres import Postgres, running_postgres
from tests.bench.tables import Limit, limits, table
from tests.support.daemons import Daemon, daemon, through
from tests.support.hanging_disk import hanging_mount, may_mount
from tests.support.proxy import proxy_to
from tests.support.waiting import until

_TIMES = 5
_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


def bench() -> Iterator[str]:
    """Measure each situation some times."""
    with running_postgres(18) as server:
        seconds = {
            what: [_seconds_to_end(situation, server) for _ in range(_TIMES)] for what, situation in SITUATIONS.items()
        }
    rows = [[what, min(each), max(each)] for what, each in seconds.items()]
    yield table("end: from SIGTERM to the end of the process, s", ["", "least", "most"], rows)
    yield limits(*(Limit(what=what, measured=max(each), bound=2, unit=" s") for what, each in seconds.items()))


def _seconds_to_end(situation: Callable[[Postgres], contextlib.AbstractContextManager[Daemon]], on: Postgres) -> float:
    with situation(on) as watching:
        begun = time.monotonic()
        watching.end_by(signal.SIGTERM)
        return time.monotonic() - begun


@contextlib.contextmanager
def _at_rest(server: Postgres) -> Iterator[Daemon]:
    with daemon(dsn=server.dsn(), interval="1h") as watching:
        watching.scrape_when_up()
        yield watching


@contextlib.contextmanager
def _while_connecting(server: Postgres) -> Iterator[Daemon]:
    with proxy_to(server.host, server.port) as proxy:
        proxy.black_hole()
        with daemon(dsn=through(proxy), timeout="30s") as watching:
            until(lambda: proxy.clients == 1)
            yield watching
        proxy.resume()


@contextlib.contextmanager
def _in_a_poll_that_hangs(server: Postgres) -> Iterator[Daemon]:
    with proxy_to(server.host, server.port) as proxy:
        with daemon(dsn=through(proxy), timeout="30s") as watching:
            watching.scrape_when_up()
            proxy.black_hole()
            watching.scrape_when(lambda scrape: scrape.silence() > 0.5)
            yield watching
        proxy.resume()


@contextlib.contextmanager
def _after_the_server_vanished(server: Postgres) -> Iterator[Daemon]:
    with proxy_to(server.host, server.port) as proxy:
        with daemon(dsn=through(proxy), interval="1h") as watching:
            watching.scrape_when_up()
            proxy.black_hole()
            yield watching
        proxy.resume()


@contextlib.contextmanager
def _with_clients_that_do_not_read(server: Postgres) -> Iterator[Daemon]:
    with daemon(dsn=server.dsn()) as watching, contextlib.ExitStack() as stack:
        watching.scrape_when_up()
        address = httpx.URL(watching.address)
        for sent in (b"", b"GET /metrics", _REQUEST * 100_000) * 5:
            client = stack.enter_context(socket.create_connection((address.host, address.port)))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.send(sent)
        watching.scrape()
        yield watching


@contextlib.contextmanager
def _while_its_directories_hang(server: Postgres) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as folder, hanging_mount(Path(folder, "mount")):
        directories = ("--record-dir", f"{folder}/mount/record", "--state-dir", f"{folder}/mount/state")
        with daemon(*directories, dsn=server.dsn()) as watching:
            watching.scrape_when_up()
            yield watching


SITUATIONS = {
    "at rest": _at_rest,
    "while connecting": _while_connecting,
    "in a poll that hangs": _in_a_poll_that_hangs,
    "after the server vanished": _after_the_server_vanished,
    "with clients that do not read": _with_clients_that_do_not_read,
} | ({"while record_dir and state_dir hang": _while_its_directories_hang} if may_mount() else {})
