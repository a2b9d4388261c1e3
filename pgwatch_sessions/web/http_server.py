"""The HTTP server inside the daemon's own event loop, bounded whatever its clients do.

uvicorn's protocol speaks HTTP; its `Server` is not used: it takes over the process's signals, ticks ten times a
second, and at its end waits for clients. What uvicorn leaves unbounded is bounded here:

* time: an exchange (request and response together, and the handshake where there is TLS) has one deadline. That covers
  slow handshakes, slow headers, slow bodies, clients that do not read, and idle connections alike.
* number: at the limit, a new connection displaces the one whose exchange is the oldest. Refusing the new one would
  let idle clients lock Prometheus out, as leaked sessions lock out an exporter. Connections count from the moment that
  they are accepted, before any handshake.
* bytes: a request's head by h11; of responses no more than one is buffered beyond the transport's high-water mark.
* log: warnings about clients are not logged, and errors of ours ten times a minute at most.
"""

import asyncio
import logging
import os
import socket
from asyncio import Transport
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from pgwatch_sessions.exposition.tls import Tls, TlsConnection

_MAX_HEAD_BYTES = 16 * 1024
_STOP_SECONDS = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of the daemon clients can hold."""

    #: Seconds from the connection, or the last response, to the end of the next response.
    deadline: float = 10.0
    connections: int = 64


class CannotListenError(Exception):
    """The address cannot be listened on; the message names it and the reason."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; port 0 lets the system choose, an empty host is every interface.

    It listens at once: with SO_REUSEADDR, Linux reports an address in use only when one of both listens.
    """
    try:
        host = host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104  # asked for
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, dualstack_ipv6=address[0] == "::")
    except (OSError, UnicodeError) as error:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise CannotListenError(f"cannot listen on {place}: {_reason(error)}") from error
    # Inherited by what is accepted. asyncio sets it only on sockets that name TCP as their protocol, which
    # create_server's do not. Without it a body waits 40 ms for the acknowledgement of its head, which is written apart.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url(listener: socket.socket, *, scheme: str = "http") -> str:
    """Return the address of a listening socket as http://host:port, without a path."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listener: socket.socket,
    bounds: Bounds = Bounds(),
    *,
    tls: Callable[[], Tls] | None = None,
) -> AsyncIterator[None]:
    """Answer requests in the running loop while inside: plain ones, or through what `tls` gives for each connection.

    Leaving closes the socket and every connection within a second, whatever the clients do.
    """
    config = Config(
        app,
        http=_BoundedProtocol,
        interface="asgi3",
        ws="none",
        lifespan="off",
        workers=1,  # else uvicorn reads WEB_CONCURRENCY, and fails on what is no number
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
    )
    config.load()
    state = ServerState()
    connections: set[_Connection] = set()

    def protocol() -> asyncio.Protocol:
        http = _BoundedProtocol(config, state, {}, connections=connections, bounds=bounds)
        return TlsConnection(http, tls()) if tls else http

    log_limit = _AtMostPerMinute(10)
    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(log_limit)
    server = await asyncio.get_running_loop().create_server(protocol, sock=listener)
    try:
        yield
    finally:
        server.close()
        await _stop(state.tasks, connections)
        logger.removeFilter(log_limit)


async def _stop(tasks: Collection[asyncio.Task[None]], connections: "Collection[_Connection]") -> None:
    """Let responses that are under way end, then abort what is left, which ends the tasks that wait for clients."""
    await _ended(tasks)
    for connection in list(connections):
        connection.abort()
    await _ended(tasks)


async def _ended(tasks: Collection[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=_STOP_SECONDS)


class _Connection:
    """One client's connection as the bounds see it, from its acceptance to its end."""

    def __init__(self, transport: Transport, among: set["_Connection"], bounds: Bounds) -> None:
        """Make room for it among the others."""
        self._transport = transport
        self._among = among
        self._loop = asyncio.get_running_loop()
        self._seconds = bounds.deadline
        self._deadline: asyncio.TimerHandle | None = None
        self._exchange_began = 0.0
        self.begin_exchange()
        among.add(self)
        if len(among) > bounds.connections:
            min(among, key=lambda each: each._exchange_began).abort()  # noqa: SLF001  # of this very class

    def begin_exchange(self) -> None:
        """Count the deadline from now on."""
        self._stop_clock()
        self._exchange_began = self._loop.time()
        self._deadline = self._loop.call_later(self._seconds, self.abort)

    def abort(self) -> None:
        """End it at once, whatever is under way."""
        self._among.discard(self)
        self._transport.abort()

    def ended(self) -> None:
        """Forget it."""
        self._among.discard(self)
        self._stop_clock()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()


class _BoundedProtocol(H11Protocol):
    """uvicorn's protocol with a deadline for each exchange and a bounded number of connections."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        connections: set[_Connection],
        bounds: Bounds,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._all = connections
        self._bounds = bounds
        self._connection: _Connection | None = None

    def accepted(self, transport: Transport) -> None:
        """Bound the connection from now on, which is before its handshake where there is TLS."""
        self._connection = _Connection(transport, self._all, self._bounds)

    def ended(self) -> None:
        """Forget the connection, whether its handshake ever was over or not."""
        if self._connection is not None:
            self._connection.ended()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        if self._connection is None:
            self.accepted(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        if self._connection is not None:
            self._connection.begin_exchange()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        # A request whose body turns out to be nonsense has a task, which must not answer after the 400.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
        # Once a response has begun and waits for its client to read, no other can be sent.
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.abort()


class _AtMostPerMinute(logging.Filter):
    """Passes so many records of each minute and drops the rest."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._minute = 0
        self._passed = 0

    def filter(self, record: logging.LogRecord) -> bool:
        minute = int(record.created // 60)
        if minute != self._minute:
            self._minute, self._passed = minute, 0
        self._passed += 1
        return self._passed <= self._limit


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or error.errno is None:
        return str(error.args[-1])
    return os.strerror(error.errno)
