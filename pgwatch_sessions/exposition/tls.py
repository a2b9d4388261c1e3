"""TLS between a socket's transport and a protocol, in memory.

asyncio's own layer is not used: until its handshake is over, a connection is known to nobody who could count or end it,
and a client that is refused gets a reset instead of the alert that would tell it why.
"""

import asyncio
import contextlib
import ssl
from asyncio import BaseTransport, Transport
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

#: As much as a record of TLS holds.
_RECORD = 16 * 1024
_PLAIN_HTTP = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis address speaks HTTPS, not HTTP.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to speak TLS with the next client."""

    context: ssl.SSLContext
    #: Asked once the handshake is over whether the client's certificate will do; it is sent away otherwise.
    admits: Callable[[ssl.SSLObject], bool]


class Inner(Protocol):
    """The protocol within: asyncio's own, and what it wants to know of the socket before the handshake is over."""

    def accepted(self, transport: Transport) -> None:
        """Take note of the socket."""

    def ended(self) -> None:
        """Take note of its end; `connection_lost` follows where `connection_made` was called."""

    def connection_made(self, transport: Transport) -> None:
        """Begin, the handshake being over."""

    def data_received(self, data: bytes) -> None:
        """Take what the client said."""

    def pause_writing(self) -> None:
        """Stop writing."""

    def resume_writing(self) -> None:
        """Go on writing."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""


class TlsConnection(asyncio.Protocol, Transport):
    """A server's side of TLS: the protocol of the socket's transport, and the transport of the protocol within.

    It waits for nothing by itself: whoever took note of the socket ends what takes too long.
    """

    def __init__(self, inner: Inner, how: Tls) -> None:
        """Begin the handshake when the client does."""
        self._inner = inner
        self._how = how
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = how.context.wrap_bio(self._received, self._to_send, server_side=True)
        self._shaken = self._paused = self._closing = False
        self._socket: Transport = None  # type: ignore[assignment]  # there from connection_made on

    # --- as the protocol of the socket ---

    def connection_made(self, transport: BaseTransport) -> None:
        """Wait for the client to begin."""
        self._socket = cast("Transport", transport)
        self._inner.accepted(self._socket)

    def data_received(self, data: bytes) -> None:
        """Take what the socket brought."""
        self._received.write(data)
        self._advance()

    def pause_writing(self) -> None:
        """Pass on that the socket has enough to send."""
        if self._shaken:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it may have more."""
        if self._shaken:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, on whichever side the end began."""
        self._closing = True
        self._inner.ended()
        if self._shaken:
            self._inner.connection_lost(exc)

    # --- as the transport of the protocol within ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell what the socket's transport knows, and that this is TLS."""
        return self._how.context if name == "sslcontext" else self._socket.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell whether the end has begun."""
        return self._closing or self._socket.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send, unless the end has begun."""
        if self.is_closing():
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest[:_RECORD]) :]
                self._flush()
        except ssl.SSLError:
            self.abort()

    def pause_reading(self) -> None:
        """Hand over nothing more."""
        self._paused = True
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Go on handing over."""
        if self._paused:
            self._paused = False
            self._socket.resume_reading()
            asyncio.get_running_loop().call_soon(self._advance)  # what had come before the pause

    def close(self) -> None:
        """Say goodbye, and close once all is sent; the client's goodbye is not waited for."""
        if self.is_closing():
            return
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # it wants to read the client's
            self._tls.unwrap()
        self._flush()
        self._socket.close()

    def abort(self) -> None:
        """End without a goodbye."""
        self._closing = True
        self._socket.abort()

    # --- within ---

    def _advance(self) -> None:
        """Go as far as what was received allows."""
        if self.is_closing():
            return
        try:
            if not self._shaken:
                self._tls.do_handshake()
                self._begin()
            self._deliver()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._refuse(error)

    def _begin(self) -> None:
        self._flush()
        if self._how.admits(self._tls):
            self._shaken = True
            self._inner.connection_made(self)
        else:
            self.close()

    def _deliver(self) -> None:
        """Hand over what was said, until SSLWantReadError tells that there is no more."""
        while not self._paused and not self.is_closing():
            data = self._tls.read(_RECORD)
            if data:
                self._inner.data_received(data)
            else:  # the client's goodbye
                self.close()

    def _refuse(self, error: ssl.SSLError) -> None:
        """End with the alert that says why, or in words to somebody who does not speak TLS at all."""
        self._closing = True
        if error.reason == "HTTP_REQUEST":
            self._socket.write(_PLAIN_HTTP)
        else:
            self._flush()
        self._socket.close()

    def _flush(self) -> None:
        if self._to_send.pending:
            self._socket.write(self._to_send.read())
