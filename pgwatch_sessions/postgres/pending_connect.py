"""A connect that goes on until the server answers, however many polls that takes.

While `pg_authid` or `pg_database` is locked, nobody can log in: a new backend waits in start-up, and does not notice
when its client goes away. If each poll gave up and connected again, each would leave one more backend on the server, in
slots that nobody else can use. A frozen server is no better: each connect of ours would wait in its queue. So a poll
that runs out of time leaves the connect as it is, and the next poll goes on waiting for it.

How long may that take? Nobody knows how long a lock is held, so it depends on what the network says about the host:

* A host that does not complete the TCP handshake has no backend of ours. It is given up after a poll's time, and the
  next host of the DSN is tried. (asyncpg has one deadline for all hosts only, and the first would use all of it.)
* A host that has completed the handshake is waited for as long as its kernel acknowledges our packets, which it does
  while a backend waits or is frozen. If the host is gone, or a firewall swallows our packets, TCP keepalive ends the
  connection after about 30 s, and the next poll connects again.
* A program in between, such as a TCP proxy, may acknowledge packets that never reach the server. Nothing tells that
  apart from a lock, so a connect is given up after ten minutes at the latest.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

import asyncpg

from pgwatch_sessions.postgres.unreachable import UnreachableError, explained, none_reachable

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)

#: After this many seconds a connect that was accepted and never answered is given up.
LONGEST_SECONDS = 600.0
#: How many seconds leaving may take. It needs no answer from the server.
_LEAVING_SECONDS = 0.5

#: TCP options, in seconds where they are times. They end a connection whose host no longer acknowledges packets: data
#: after 30 s; silence after 15 s and three probes, one each 5 s. What an operating system does not have is left out.
_KEEPALIVE_OPTIONS = {
    "TCP_USER_TIMEOUT": 30_000,  # milliseconds
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPALIVE": 15,  # macOS' name for TCP_KEEPIDLE
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
}


class PendingConnect:
    """One connect to one server, in a task of its own, from its beginning until it has succeeded or failed.

    Its owner must either take the result or abandon it.
    """

    def __init__(
        self, connect: Callable[["Dialer"], Coroutine[Any, Any, asyncpg.Connection]], *, handshake_seconds: float
    ) -> None:
        """Start `connect` with a new dialer. Each host has `handshake_seconds` to complete the TCP handshake."""
        self._dialer = Dialer(handshake_seconds)
        self._task = asyncio.create_task(self._run(connect))

    @property
    def waits_for(self) -> str:
        """What has not happened yet, for the person who reads why a poll failed."""
        if not self._dialer.accepted:
            return f"{self._dialer.host} does not answer"
        return "the server has accepted the connection and has not answered yet; the next poll goes on waiting"

    @property
    def host(self) -> str | None:
        """The host that accepted, if it was not the first one of the DSN."""
        return self._dialer.host if self._dialer.accepted and self._dialer.problems else None

    @property
    def failed(self) -> bool:
        """Whether it has failed. Reading this counts as having heard of the error."""
        return self._task.done() and (self._task.cancelled() or self._task.exception() is not None)

    async def finished(self) -> None:
        """Wait until it has succeeded or failed. Cancelling this wait does not end the connect."""
        await asyncio.wait({self._task})

    def result(self) -> asyncpg.Connection:
        """Return the connection, or raise what the connect failed with."""
        return self._task.result()

    async def abandon(self) -> None:
        """End it at once, without a goodbye to the server."""
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=_LEAVING_SECONDS)
        if self._task.done() and not self.failed:
            self._task.result().terminate()

    async def _run(self, connect: Callable[["Dialer"], Coroutine[Any, Any, asyncpg.Connection]]) -> asyncpg.Connection:
        try:
            return await connect(self._dialer)
        except (UnreachableError, TimeoutError) as error:
            self._dialer.abort()
            if len(self._dialer.problems) < 2:
                raise
            raise type(error)(none_reachable(self._dialer.problems)) from error
        except BaseException:
            # asyncpg closes the socket politely, which over TLS waits for the other side, or not at all if the server's
            # greeting makes no sense.
            self._dialer.abort()
            raise


class Dialer:
    """The running event loop, except that it watches over each TCP handshake and over the socket that comes of it.

    asyncpg.connect opens its own sockets and shows them only when the server has answered. Its argument `loop` is the
    one place where we can give each host its own deadline, and have TCP keepalive from the start.
    """

    def __init__(self, handshake_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._handshake_seconds = handshake_seconds
        self._transport: asyncio.Transport | None = None
        #: The host that is connected to, as host:port or as the path of a socket.
        self.host = "the server"
        #: Why each host so far could not be connected to.
        self.problems: list[str] = []

    @property
    def accepted(self) -> bool:
        """Whether the host has completed the handshake."""
        return self._transport is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """What to give to asyncpg, which only calls methods of its loop."""
        return cast("asyncio.AbstractEventLoop", self)

    def abort(self) -> None:
        """Close the socket at once."""
        if self._transport is not None:
            self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, protocol_factory: Callable[[], Protocol], host: str, port: int, **options: Any
    ) -> tuple[asyncio.Transport, Protocol]:
        """Connect to a TCP port; TimeoutError if the host does not accept in time."""
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return await self._accepted(name, self._loop.create_connection(protocol_factory, host, port, **options))

    async def create_unix_connection(
        self, protocol_factory: Callable[[], Protocol], path: str
    ) -> tuple[asyncio.Transport, Protocol]:
        """Connect to a socket in the file system."""
        return await self._accepted(path, self._loop.create_unix_connection(protocol_factory, path))

    async def _accepted(
        self, host: str, connecting: Awaitable[tuple[asyncio.Transport, Protocol]]
    ) -> tuple[asyncio.Transport, Protocol]:
        self.host, self._transport = host, None
        try:
            async with asyncio.timeout(self._handshake_seconds):
                transport, protocol = await connecting
        except TimeoutError:
            self.problems.append(f"{host} does not answer")
            raise TimeoutError(self.problems[-1]) from None
        except OSError as error:
            unreachable = explained(error, host)
            self.problems.append(unreachable.problem)
            raise unreachable from error
        _keep_alive(transport.get_extra_info("socket"))
        self._transport = transport
        return transport, protocol


def _keep_alive(connected: socket.socket) -> None:
    if connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
