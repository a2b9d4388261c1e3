"""The HTTP server inside the daemon's event loop. Its clients can hold only a bounded part of the daemon.

uvicorn's protocol on h11 speaks HTTP, and asyncio speaks TLS. uvicorn's `Server` is not used: it takes over the
process's signals, wakes up ten times a second, and waits for clients when it stops. Its faster protocol, on httptools,
is not used either, because it does not limit the size of a request's head. What both leave unbounded is bounded here:

* Time: each exchange has one deadline, 10 s by default. It covers the TLS handshake, the request, the response, and
  the idle time before the next request.
* Number: `crowd.py` decides which connection gives way when there are too many, or when file descriptors run out. A
  connection counts from the moment it is accepted, so TLS handshakes count too.
* Memory: h11 limits a request's head to 16 KiB. At most one response per connection is buffered. With TLS, asyncio
  adds a buffer of 256 KiB per connection.
* Log: nothing that a client does is logged, except that file descriptors run out. Errors of the program are logged at
  most ten times a minute.
"""

import asyncio
import errno
import logging
import os
import socket
import ssl
from asyncio import Task
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import h11
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from pgwatch_sessions.web.crowd import Bounds, Crowd, Refused

_MAX_HEAD_BYTES = 16 * 1024
_STOP_SECONDS = 0.4
_ACCEPT_AGAIN_SECONDS = 1.0
#: Too many open files: of this process, or of the machine.
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_LOG = logging.getLogger("uvicorn.error")

_Tls = Callable[[], ssl.SSLContext | None]


_turn_away = PlainTextResponse(
    "Too many HTTP clients at once; try again in a second.\n",
    status_code=503,
    headers={"Retry-After": "1", "Connection": "close", "Cache-Control": "no-store"},
)


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
    # Accepted sockets inherit this. asyncio sets it only on sockets that name TCP as their protocol, which
    # create_server's do not. Without it a response waits 40 ms: its head and body are written apart, and the kernel
    # would keep the body until the client acknowledges the head.
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
    bounds: Bounds = Bounds(),  # noqa: B008  # immutable
    *,
    tls: _Tls | None = None,
    refused: Refused | None = None,
) -> AsyncIterator[None]:
    """Answer requests in the running loop until the block ends: over plain HTTP, or with the context `tls` returns.

    Connections that are refused are counted in `refused`.

    `tls` is called for each connection, so that new certificates need no restart. It may return None for plain HTTP.

    Leaving closes the socket and every connection within a second, whatever the clients do.
    """
    config = Config(
        app,
        http=_Connection,
        interface="asgi3",
        ws="none",
        lifespan="off",
        workers=1,  # otherwise uvicorn reads WEB_CONCURRENCY, and fails if that is not a number
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
    )
    config.load()
    state = ServerState()
    refused = Refused() if refused is None else refused
    crowd: Crowd[_Connection] = Crowd(bounds, refused, tls=tls is not None)
    log_limit = _LogLimit(10)
    _LOG.addFilter(log_limit)

    def connect(client: socket.socket) -> None:
        _Connection(config, state, client, crowd=crowd, tls=tls)

    acceptor = asyncio.create_task(_accept(listener, connect, refused))
    try:
        yield
    finally:
        acceptor.cancel()
        await asyncio.wait([acceptor])
        listener.close()
        await _stop(state.tasks, crowd.connections())
        _LOG.removeFilter(log_limit)


async def _accept(listener: socket.socket, connect: Callable[[socket.socket], None], refused: Refused) -> None:
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    while True:
        try:
            client, _ = await loop.sock_accept(listener)
        except ConnectionAbortedError:  # the client has already gone
            continue
        except OSError as error:  # this may pass
            if error.errno in _NO_DESCRIPTORS:
                refused.no_descriptors(now=loop.time())
            else:
                _LOG.error("cannot accept connections, trying again in %g s: %s", _ACCEPT_AGAIN_SECONDS, _reason(error))
            await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
        else:
            connect(client)
            await asyncio.sleep(0)  # the connection's task begins, so that it will close the socket in any case


async def _stop(responses: Collection[Task[None]], connections: "Collection[_Connection]") -> None:
    """Give responses under way a moment to finish, then end the connections, then the responses that still wait."""
    await _wait_for(responses)
    for tasks in ([connection.task for connection in connections], responses):
        for task in tasks:
            task.cancel()
        await _wait_for(tasks)


async def _wait_for(tasks: Collection[Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=_STOP_SECONDS)


class _Connection(H11Protocol):
    """One client's connection, from its acceptance to its end: uvicorn's protocol with a deadline for each exchange.

    `task` lives as long as the connection. Cancelling it closes the connection at once.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        client: socket.socket,
        *,
        crowd: "Crowd[_Connection]",
        tls: _Tls | None,
    ) -> None:
        """Join the others."""
        super().__init__(config, state, {})
        self._crowd = crowd
        self._lost = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.exchange_began = 0.0
        self.task = self.loop.create_task(self._serve(client, tls))
        self._begin_exchange()
        crowd.joined(self, descriptor=client.fileno(), now=self.loop.time())

    @property
    def asked(self) -> bool:
        """Whether a request has come on this connection."""
        return self.cycle is not None

    @property
    def answering(self) -> bool:
        """Whether a request has come and its answer has not been taken yet."""
        return self.asked and (not self.cycle.response_complete or self.transport.get_write_buffer_size() > 0)

    def turn_away(self) -> None:
        """Answer its request, which is still to come, with 503."""
        self.app = _turn_away

    def close(self) -> None:
        """Close the connection at once."""
        self.task.cancel()

    async def _serve(self, client: socket.socket, tls: _Tls | None) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: self, client, ssl=tls() if tls else None)
            await self._lost.wait()
        except (OSError, asyncio.CancelledError) as error:  # the TLS handshake failed, or the connection must end
            # The traceback is part of a cycle with asyncio's buffer of 256 KiB. Without this line the memory is free
            # only when Python's garbage collector comes to it, and until then 1,000 such connections take 130 MB.
            error.__traceback__ = None
        finally:
            self._stop_timer()
            self._crowd.left(self)
            if not self._lost.is_set() and self.transport is not None:
                self.transport.abort()

    def _begin_exchange(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self._crowd.bounds.deadline, self.task.cancel)
        self.exchange_began = self.loop.time()
        self._crowd.began_exchange(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        if not self.task.done():
            self._begin_exchange()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        # The application may still be answering a request whose body turned out to be invalid. Its answer must not
        # follow the 400.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
        # Once a response has begun, no other can be sent.
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.abort()


class _LogLimit(logging.Filter):
    """Passes so many records of each minute, and none about tasks that `_stop` cancelled."""

    def __init__(self, per_minute: int) -> None:
        super().__init__()
        self._limit = per_minute
        self._minute = 0
        self._passed = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return False
        minute = int(record.created // 60)
        if minute != self._minute:
            self._minute, self._passed = minute, 0
        self._passed += 1
        return self._passed <= self._limit


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, socket.gaierror) or not isinstance(error, OSError) or error.errno is None:
        return str(error.args[-1])
    return os.strerror(error.errno)
