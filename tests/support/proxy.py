"""A TCP proxy that can turn bad: a black hole, cut connections, a far or a slow link."""

import asyncio
import concurrent.futures
import contextlib
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to a server; steered from the test's thread."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._forwarding: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        #: The TCP port on 127.0.0.1 that stands for the server's.
        self.port = 0
        #: How many seconds each packet takes on its way, in both directions.
        self.latency = 0.0
        #: How many bytes a second come from the server.
        self.bytes_per_second = math.inf
        #: How often a client has sent something since the server's last answer, which is a round trip.
        self.round_trips = 0
        self._client_spoke = False

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
            answers, onward = await asyncio.open_connection(*self._server)
            both.add(onward)
            self._writers |= both
            await asyncio.gather(self._pump(reader, onward), self._pump(answers, writer, answers=True))
        except OSError:
            pass  # either side is gone: so is the other, below
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while data := await source.read(65536 if self.bytes_per_second == math.inf else 1000):
            self.round_trips += not answers and not self._client_spoke
            self._client_spoke = not answers
            await asyncio.sleep(self.latency + (len(data) / self.bytes_per_second if answers else 0))
            await self._passing.wait()
            target.write(data)
            await target.drain()
        await self._passing.wait()
        target.close()

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()

    def _do(self, act: Callable[[], None]) -> None:
        done = threading.Event()

        def acted() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(acted)
        assert done.wait(timeout=5)


@contextlib.contextmanager
def proxy_to(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy to this server in a thread of its own."""
    started: concurrent.futures.Future[Proxy] = concurrent.futures.Future()

    async def run() -> None:
        await Proxy(host, port).serve(started)

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="proxy")
    thread.start()
    proxy = started.result(timeout=5)
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
