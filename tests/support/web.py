"""The web side on a real socket, with a client, and connections that speak no HTTP of their own accord."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.web.app import Health, web_app
from pgwatch_sessions.web.crowd import Bounds, Refused
from pgwatch_sessions.web.http_server import bind, serving, url

#: Every address but the page.
PATHS = ("/metrics", "/api/v1/leaks", "/api/v1/sessions", "/api/v1/diagnosis", "/runbooks/", "/healthz", "/readyz")
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
QUICK = Bounds(deadline=0.3)
#: What a test gives to what should come at once, on a machine that has other work.
PATIENCE = 10.0

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class Watched(Collector):
    """A collector of published states, which the tests replace; it knows how often it was collected."""

    def __init__(self, *, padding: int = 0) -> None:
        self.state: Mapping[str, ServerState] = {}
        self.collected = 0
        self.error: Exception | None = None
        self._text = "Sessions." + "x" * padding

    def describe(self) -> Iterator[Metric]:
        """Name the families, for `name[]`."""
        yield GaugeMetricFamily("sessions", self._text)
        yield CounterMetricFamily("polls", "Polls.")

    def collect(self) -> Iterator[Metric]:
        """Count this collection, and fail if told to."""
        self.collected += 1
        if self.error:
            raise self.error
        yield GaugeMetricFamily("sessions", self._text, value=self.collected)
        yield CounterMetricFamily("polls", "Polls.", value=7)


def passed() -> Health:
    """Judge that all is well."""
    return Health(ok=True, reason="polling every 10s")


@asynccontextmanager
async def served(
    watched: Watched | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008 - immutable
    *,
    readiness: Callable[[], Health] = passed,
    version: str = "1.2.3",
    refused: Refused | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve over a real socket, and give a client of it."""
    watched = watched or Watched()
    registry = CollectorRegistry()
    registry.register(watched)
    app = web_app(
        version=version,
        registry=registry,
        states=lambda: watched.state,
        health=passed,
        readiness=readiness,
    )
    listener = bind("127.0.0.1", 0)
    async with serving(app, listener, bounds, refused=refused), httpx.AsyncClient(base_url=url(listener)) as client:
        yield client


@asynccontextmanager
async def connected(client: httpx.AsyncClient) -> AsyncIterator[tuple[Reader, Writer]]:
    """Open a bare connection to what the client talks to."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_until_cut(reader: Reader) -> bytes:
    """Read until the server closes the connection, however it does."""
    received = b""
    async with asyncio.timeout(PATIENCE):
        try:
            while data := await reader.read(65536):
                received += data
        except ConnectionError:
            pass
    return received


async def answer_to(client: httpx.AsyncClient, request: bytes) -> bytes:
    """Send bytes on a connection of their own, and return all that comes back until the server closes it."""
    async with connected(client) as (reader, writer):
        writer.write(request)
        return await read_until_cut(reader)
