"""A TCP proxy that can turn bad: slow, silent, garbled, or cut; and that can speak TLS in front of a server."""

import asyncio
import concurrent.futures
import contextlib
import math
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 65536
#: At a limited rate, so many bytes are forwarded at a time.
_SLOW_CHUNK = 1000
#: The length of the message by which a client of PostgreSQL asks for TLS.
_TLS_REQUEST_BYTES = 8


class Proxy:
    """Forwards connections to a server; steered from the test's thread."""

    def __init__(self, host: str, port: int, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        """With `tls`, clients must ask for TLS as PostgreSQL's do, and get what it returns at that moment."""
        self._server = (host, port)
        self._tls = tls
        self._forwarding: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._onward: set[asyncio.StreamWriter] = set()
        self._lost: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        #: The TCP port on 127.0.0.1 that stands for the server's.
        self.port = 0
        #: How many seconds each packet takes on its way, in both directions.
        self.latency = 0.0
        #: What becomes of bytes from the server.
        self.answer: Callable[[bytes], bytes] = bytes
        #: How many bytes a second come from the server.
        self.bytes_per_second = math.inf
        #: How often a client has sent something since the server's last answer, which is a round trip.
        self.round_trips = 0
        self._client_spoke = False
        #: After so many more bytes of answers, the connection that they belong to is reset. None for never.
        self.reset_after: int | None = None

    @property
    def clients(self) -> int:
        """How many clients are connected now, whatever became of it behind us."""
        return len(self._forwarding)

    def black_hole(self) -> None:
        """From now on accept everything and forward nothing, not even the end of a connection."""
        self._do(self._passing.clear)

    def resume(self) -> None:
        """Forward again, beginning with what was held back."""
        self._do(self._passing.set)

    def cut(self) -> None:
        """Reset all present connections, on both sides."""
        self._do(self._abort_all)

    def lose_servers(self) -> None:
        """Leave present connections half open: the server's side ends, and clients get no answer and no end."""
        self._do(self._lose_all)

    def close(self) -> None:
        """End, with all connections."""
        self._do(self._closed.set)

    async def serve(self, started: "concurrent.futures.Future[Proxy]") -> None:
        """Forward until closed."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set_result(self)
        await self._closed.wait()
        server.close()
        for forwarding in self._forwarding:
            forwarding.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio's, before 3.12, reports its cancellation as an error.
        forwarding = asyncio.create_task(self._forward(reader, writer))
        self._forwarding.add(forwarding)
        forwarding.add_done_callback(self._forwarding.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        both = {writer}
        self._writers |= both
        try:
            await self._passing.wait()
            if self._tls is not None:
                await reader.readexactly(_TLS_REQUEST_BYTES)
                writer.write(b"S")
                await writer.start_tls(self._tls())
            answers, onward = await asyncio.open_connection(*self._server)
            both.add(onward)
            self._writers |= both
            self._onward.add(onward)
            await asyncio.gather(self._pump(reader, onward), self._pump(answers, writer, lost=onward))
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side is gone: so is the other, below
        finally:
            self._writers -= both
            self._onward -= both
            self._lost -= both
            for each in both:
                each.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        *,
        lost: asyncio.StreamWriter | None = None,
    ) -> None:
        """Forward until the end. Answers come from a server, which `lose_servers` may have lost."""
        is_answer = lost is not None
        while data := await source.read(_CHUNK if self.bytes_per_second == math.inf else _SLOW_CHUNK):
            self.round_trips += not is_answer and not self._client_spoke
            self._client_spoke = not is_answer
            await asyncio.sleep(self.latency + (len(data) / self.bytes_per_second if is_answer else 0))
            await self._passing.wait()
            if target in self._lost:
                continue
            if is_answer:
                data = self.answer(data)
            if is_answer and self.reset_after is not None:
                target.write(data[: self.reset_after])
                self.reset_after -= len(data)
                if self.reset_after <= 0:
                    self.reset_after = None
                    _reset(target)
                    return
            else:
                target.write(data)
            await target.drain()
        if lost in self._lost:
            return
        await self._passing.wait()
        target.close()

    def _lose_all(self) -> None:
        for onward in self._onward:
            self._lost.add(onward)
            onward.transport.abort()

    def _abort_all(self) -> None:
        for writer in self._writers:
            _reset(writer)

    def _do(self, act: Callable[[], None]) -> None:
        done = threading.Event()

        def acted() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(acted)
        assert done.wait(timeout=5)


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


@contextlib.contextmanager
def proxy_to(host: str, port: int, tls: Callable[[], ssl.SSLContext] | None = None) -> Iterator[Proxy]:
    """Run a proxy to this server in a thread of its own."""
    started: concurrent.futures.Future[Proxy] = concurrent.futures.Future()

    async def run() -> None:
        await Proxy(host, port, tls).serve(started)

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="proxy")
    thread.start()
    proxy = started.result(timeout=5)
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


def inverted(answer: bytes) -> bytes:
    """Return an answer whose every bit is wrong."""
    return bytes(byte ^ 0xFF for byte in answer)
