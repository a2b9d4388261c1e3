"""Real applications over real HTTP: each in a thread and an event loop of its own."""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import uvicorn
from fastapi import FastAPI

from tests.support.waiting import until


@contextlib.contextmanager
def serving(application: FastAPI) -> Iterator[str]:
    """Serve an application on a port of its own until the block ends; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(max_workers=1) as thread:
        # asyncio does so only for sockets made with an explicit protocol; without it each answer takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        server = uvicorn.Server(
            uvicorn.Config(application, lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        running = thread.submit(server.run, sockets=[listener])
        try:
            until(lambda: server.started or running.done())
            assert server.started, running.result()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
        running.result()


async def visitor(address: str, path: str, *, pause: float = 0.05, times: int | None = None) -> None:
    """Request a path, so many times or without end; any answer but a success is an error."""
    async with httpx.AsyncClient(base_url=address, timeout=30, verify=False) as http:  # noqa: S501 - there is no TLS
        done = 0
        while times is None or done < times:
            (await http.get(path)).raise_for_status()
            done += 1
            await asyncio.sleep(pause)


def crowd(count: int, address: str, path: str, *, pause: float = 0.05) -> list[Coroutine[None, None, None]]:
    """Return so many visitors without end."""
    return [visitor(address, path, pause=pause) for _ in range(count)]
