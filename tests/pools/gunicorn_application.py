"""An application for gunicorn: it borrows connections, and shows the pools of all workers."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import Connection, create_engine, select

from pgwatch_sessions.pools import instrument
from pgwatch_sessions.pools.multiprocess import publish_multiprocess

engine = create_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=1)
instrument(engine, name="orders")
publish_multiprocess(every=0.02)

#: The connection that this worker keeps.
_kept: list[Connection] = []


def _read() -> bytes:
    with engine.connect() as connection:
        connection.execute(select(1))
    return str(os.getpid()).encode()


def _keep() -> bytes:
    if not _kept:
        _kept.append(engine.connect())
    return str(os.getpid()).encode()


def _metrics() -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client lacks its type
    return generate_latest(registry)


_PATHS: dict[str, Callable[[], bytes]] = {"/read": _read, "/keep": _keep, "/metrics": _metrics}


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer for gunicorn's own workers."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [_PATHS[environ["PATH_INFO"]]()]


async def asgi(scope: dict[str, Any], receive: Callable[..., object], send: Callable[..., Any]) -> None:
    """Answer for workers of uvicorn."""
    del receive
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": _PATHS[scope["path"]]()})
