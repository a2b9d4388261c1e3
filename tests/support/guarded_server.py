"""A small application behind a web configuration."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from starlette.responses import PlainTextResponse

from pgwatch_sessions.web.access.access import Access
from pgwatch_sessions.web.crowd import Bounds
from pgwatch_sessions.web.http_server import bind, serving, url
from tests.support.certificates import trusting

PASSWORD = "hunter2"
LOGIN = ("prometheus", PASSWORD)
#: With this cost one check takes a good part of a second.
SLOW = 11
#: Seconds for what should come at once, on a machine that has other work.
PATIENCE = 10.0
BODY = "the metrics\n"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@asynccontextmanager
async def guarded(
    file: Path,
    bounds: Bounds = Bounds(),  # noqa: B008 - immutable
    *,
    body: str = BODY,
) -> AsyncIterator[httpx.AsyncClient]:
    """Answer every request with the body, if this web configuration lets it through; yield a client."""
    access = Access(file)
    app = access.guard(PlainTextResponse(body))
    listener = bind("127.0.0.1", 0)
    address = url(listener, scheme=access.scheme)
    async with (
        serving(app, listener, bounds, tls=access.tls),
        httpx.AsyncClient(base_url=address, verify=trusting(), timeout=30) as client,
    ):
        yield client


async def status(
    client: httpx.AsyncClient, auth: tuple[str, str] | None = None, *, path: str = "/metrics", **headers: str
) -> int:
    """Send a request on a connection of its own; return the answer's status."""
    answer = await client.get(path, auth=auth, headers={"Connection": "close", **headers})
    assert (answer.text == BODY) == (answer.status_code == 200)
    return answer.status_code


def basic(login: bytes) -> str:
    """Return the value of an Authorization header."""
    return f"Basic {base64.b64encode(login).decode()}"
