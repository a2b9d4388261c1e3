"""The event loop that asyncpg connects with: it opens the sockets, and watches what comes over them.

asyncpg.connect opens its own sockets and shows them only when the server has answered. Its argument `loop` is the one
place where we can look up names without delaying others, give each address its own deadline, have TCP keepalive from
the start, and see what the server asks for.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

from pgwatch_sessions.postgres.login import LoginCheck, LoginRefusedError, LoginRules, NoPostgresError
from pgwatch_sessions.postgres.names import Names
from pgwatch_sessions.postgres.unreachable import explained

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)

#: TCP options, in seconds where they are times. They end a connection whose host no longer acknowledges packets: data
#: after 30 s; silence after 15 s and three probes, one each 5 s. What an operating system does not have is left out.
_KEEPALIVE_OPTIONS = {
    "TCP_USER_TIMEOUT": 30_000,  # milliseconds
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPALIVE": 15,  # macOS' name for TCP_KEEPIDLE
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
}


class Dialer:
    """The running event loop, with connections that are watched."""

    def __init__(self, handshake_seconds: float, names: Names, rules: LoginRules) -> None:
        """Give a host `handshake_seconds` to be found and to complete the TCP handshake."""
        self._loop = asyncio.get_running_loop()
        self._handshake_seconds = handshake_seconds
        self._names = names
        self._rules = rules
        self._transport: asyncio.Transport | None = None
        #: The host that is connected to, as host:port or as the path of a socket.
        self.host = "the server"
        #: Why each host so far could not be connected to.
        self.problems: list[str] = []
        #: Why we refused to log in, if we did.
        self.refused: LoginRefusedError | NoPostgresError | None = None
        #: How many bytes the server has sent.
        self.received = 0

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
        private = options.get("ssl") is not None
        if private:
            options["server_hostname"] = host
        watched = self._watching(protocol_factory, private=private)
        return await self._accepted(name, self._dial(watched, host, port, options), private=private)

    async def create_unix_connection(
        self, protocol_factory: Callable[[], Protocol], path: str
    ) -> tuple[asyncio.Transport, Protocol]:
        """Connect to a socket in the file system."""
        watched = self._watching(protocol_factory, private=True)
        return await self._accepted(path, self._loop.create_unix_connection(watched, path), private=True)

    async def start_tls(self, plain: "_Line", *arguments: Any, **options: Any) -> "_Line | None":
        """Go on with TLS."""
        encrypted = await self._loop.start_tls(plain.transport, *arguments, **options)
        return _Line(encrypted, self, private=True) if encrypted else None

    def check(self, *, private: bool) -> LoginCheck:
        """Return the check of what a server asks for."""
        return LoginCheck(self._rules, private=private)

    def _watching(self, factory: "Callable[[], Protocol]", *, private: bool) -> "Callable[[], _Watched[Protocol]]":
        return lambda: _Watched(factory(), self, private=private)

    async def _dial(
        self, watched: "Callable[[], _Watched[Protocol]]", host: str, port: int, options: dict[str, Any]
    ) -> "tuple[asyncio.Transport, _Watched[Protocol]]":
        """Connect to the first address that accepts. Each has its part of the time."""
        addresses = await self._names.addresses(host, port)
        refusals: list[OSError] = []
        for address in addresses:
            try:
                async with asyncio.timeout(self._handshake_seconds / len(addresses)):
                    return await self._loop.create_connection(watched, address, port, **options)
            except TimeoutError:
                pass
            except OSError as error:
                refusals.append(error)
        if len(refusals) == 1:
            raise refusals[0]
        raise OSError("; ".join(map(str, refusals))) if refusals else TimeoutError

    async def _accepted(
        self, host: str, connecting: "Awaitable[tuple[asyncio.Transport, _Watched[Protocol]]]", *, private: bool
    ) -> tuple[asyncio.Transport, Protocol]:
        self.host, self._transport = host, None
        try:
            async with asyncio.timeout(self._handshake_seconds):
                transport, watched = await connecting
        except TimeoutError:
            self.problems.append(f"{host} does not answer")
            raise TimeoutError(self.problems[-1]) from None
        except OSError as error:
            unreachable = explained(error, host)
            self.problems.append(unreachable.problem)
            raise unreachable from error
        _keep_alive(transport.get_extra_info("socket"))
        self._transport = transport
        return cast("asyncio.Transport", _Line(transport, self, private=private)), watched.protocol


class _Line:
    """A transport, except that each of its protocols is watched."""

    def __init__(self, transport: asyncio.Transport, dialer: Dialer, *, private: bool) -> None:
        self.transport = transport
        self._dialer = dialer
        self._private = private

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass what comes to this protocol from now on."""
        self.transport.set_protocol(_Watched(protocol, self._dialer, private=self._private))


class _Watched(asyncio.Protocol, Generic[Protocol]):
    """A protocol, except that what comes is counted, and checked until the server has let us in."""

    def __init__(self, protocol: Protocol, dialer: Dialer, *, private: bool) -> None:
        self.protocol = protocol
        self._protocol = cast("asyncio.Protocol", protocol)
        self._dialer = dialer
        self._check = dialer.check(private=private)

    def data_received(self, data: bytes) -> None:
        self._dialer.received += len(data)
        if not self._check.over:
            try:
                self._check.read(data)
            except (LoginRefusedError, NoPostgresError) as error:
                self._dialer.refused = error
                self._dialer.abort()
                return
        self._protocol.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def _keep_alive(connected: socket.socket) -> None:
    if connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
