"""A TCP proxy that speaks TLS to clients in the way of PostgreSQL, for servers that were built without TLS."""

import asyncio
import concurrent.futures
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

_SSL_REQUEST_BYTES = 8


@contextlib.contextmanager
def tls_proxy_to(port: int, certificate: Path) -> Iterator[int]:
    """Yield a port of 127.0.0.1 that leads to this one. Beside NAME.pem there is NAME.key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = (
        concurrent.futures.Future()
    )

    async def forward(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await client.readexactly(_SSL_REQUEST_BYTES)
            answers.write(b"S")
            await answers.start_tls(context)
            server, onward = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(client, onward), pump(server, answers))

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.transport.abort()

    async def serve() -> None:
        closed = asyncio.Event()
        listener = await asyncio.start_server(forward, "127.0.0.1", 0)
        started.set_result((asyncio.get_running_loop(), closed, listener.sockets[0].getsockname()[1]))
        await closed.wait()
        listener.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="TLS proxy")
    thread.start()
    loop, closed, listening = started.result(timeout=5)
    try:
        yield listening
    finally:
        loop.call_soon_threadsafe(closed.set)
        thread.join()
