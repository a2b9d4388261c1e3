"""The demonstration: a small service leaks on an embedded PostgreSQL while the daemon watches."""

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from pgwatch_sessions.core.clients import ClientSummary
from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.core.view import View
from pgwatch_sessions.daemon import Watch, running
from pgwatch_sessions.demo.kept import kept, temporary_folder
from pgwatch_sessions.demo.postgres import Postgres, PostgresUnavailableError, running_postgres
from pgwatch_sessions.exposition.http_server import CannotListenError, bind, url
from pgwatch_sessions.logs import configure_logs
from pgwatch_sessions.postgres.connection import Target

_ONCE_SECONDS = 30.0
_SHOWN_EVERY_SECONDS = 3.0
_SERVICE_START_SECONDS = 20.0
#: One request in five meets the bad row: a leak about every two seconds.
_CUSTOMERS = (1, 2, 3, 4, 7)
_PAUSE_SECONDS = 0.4

_INTRODUCTION = """\
An orders service runs on a PostgreSQL of its own. Its handler GET /orders opens a session and closes it on
the last line; one customer's order raises before that, and the exception is kept. Each such request leaks a
connection: idle in transaction, for ever.

  the page     {address}/
  the metrics  {address}/metrics
  PostgreSQL   {dsn}
"""


def tell(*, once: bool) -> int:
    """Run the demonstration until Ctrl-C, or for about 30 s; return the exit code."""
    configure_logs("auto", "warning")
    _say("Starting PostgreSQL and the service ...")
    try:
        with running_postgres(settings={"max_connections": "30"}) as server, _service(server) as service:
            asyncio.run(_watch(server, service, seconds=_ONCE_SECONDS if once else None))
    except PostgresUnavailableError as error:
        sys.stderr.write(f"pgwatch-sessions: error: {error}\n")
        return 2
    _say("Ended. PostgreSQL, the service and their files are gone.")
    return 0


@contextlib.contextmanager
def _service(server: Postgres) -> Iterator[str]:
    """Run the leaking service in a process of its own; yield its address."""
    environment = {**os.environ, "ORDERS_DSN": server.dsn(), "ORDERS_POOL_SIZE": "5", "ORDERS_MAX_OVERFLOW": "15"}
    command = (sys.executable, "-m", "pgwatch_sessions.demo.service")
    with temporary_folder() as folder:
        log = folder.path / "service.log"
        with kept(command, folder=folder, env=environment, log=log) as process:
            deadline = time.monotonic() + _SERVICE_START_SECONDS
            while not (text := log.read_text()).startswith("http"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise PostgresUnavailableError(f"the sample service did not start: {text}")
                time.sleep(0.05)
            yield text.splitlines()[0]


async def _watch(server: Postgres, service: str, *, seconds: float | None) -> None:
    listener = _listener()
    watch = Watch(
        targets=(Target(name="demo", dsn=server.dsn()),),
        interval=1.0,
        timeout=2.0,
        policy=Policy(hold_limit=5.0, growth_window=60.0),
        parse=parse_statement,
    )
    async with running(watch, listener) as daemon:
        _say(_INTRODUCTION.format(address=url(listener), dsn=server.dsn()))
        requests = asyncio.create_task(_drive(service))
        ends_at = None if seconds is None else time.monotonic() + seconds
        try:
            while not daemon.end.done() and (ends_at is None or time.monotonic() < ends_at):
                await asyncio.wait([daemon.end], timeout=_SHOWN_EVERY_SECONDS)
                view = daemon.board.states()["demo"].view
                if view and not daemon.end.done():
                    _show(view)
        finally:
            requests.cancel()
    if daemon.end.done():
        daemon.end.result()  # raises what a look raised


def _listener() -> socket.socket:
    try:
        return bind("127.0.0.1", 9488)
    except CannotListenError:
        return bind("127.0.0.1", 0)


async def _drive(service: str) -> None:
    """Send a request every now and then, waiting for none."""
    async with asyncio.TaskGroup() as requests:
        for customer in itertools.cycle(_CUSTOMERS):
            requests.create_task(_get(service, f"/orders?customer={customer}"))
            await asyncio.sleep(_PAUSE_SECONDS)


async def _get(service: str, path: str) -> None:
    address = urlsplit(service)
    with contextlib.suppress(OSError):  # the service is ending
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
            await reader.read()
        finally:
            writer.close()


def _show(view: View) -> None:
    for slots in view.slots:
        _say(f"{time.strftime('%H:%M:%S')}  {slots.used} of {slots.capacity} slots used{_exhausted(view)}")
    for client in view.clients:
        _say(f"          {client.client.application:<12} {_states(client)}")


def _exhausted(view: View) -> str:
    return ", EXHAUSTED" if view.exhausted else ""


def _states(client: ClientSummary) -> str:
    held = client.idle_in_transaction_age_max
    counts = ", ".join(f"{count} {state}" for state, count in client.states.items() if count)
    oldest = f" (the longest for {held:.0f} s)" if held and client.states[SessionState.IDLE_IN_TRANSACTION] else ""
    return f"{counts or 'no session'}{oldest}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
