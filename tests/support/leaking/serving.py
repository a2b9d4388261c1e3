"""Serve applications over real HTTP, each in its own thread and event loop."""

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
def serve(application: FastAPI) -> Iterator[str]:
    """Serve an application on a free port, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(max_workers=1) as thread:
        # asyncio sets this only for sockets with an explicit protocol. Without it, each response takes 40 ms.
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


async def visit(address: str, path: str, *, pause: float = 0.05, times: int | None = None) -> None:
    """Request a path `times` times or endlessly. A response that is not successful raises an error."""
    async with httpx.AsyncClient(base_url=address, timeout=30, verify=False) as http:  # noqa: S501 - there is no TLS
        done = 0
        while times is None or done < times:
            (await http.get(path)).raise_for_status()
            done += 1
            await asyncio.sleep(pause)


def visitors(count: int, address: str, path: str, *, pause: float = 0.05) -> list[Coroutine[None, None, None]]:
    """Return `count` endless visitors."""
    return [visit(address, path, pause=pause) for _ in range(count)]
