"""The web side behind a web configuration."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from prometheus_client import CollectorRegistry

from pgwatch_sessions.exposition.access import Access
from pgwatch_sessions.web.app import metrics_app, web_app
from pgwatch_sessions.web.http_server import bind, serving, url
from tests.exposition.certificates import (
    OURS,
    authority,
)
from tests.web.test_app import Watched, passed

PASSWORD = "hunter2"
LOGIN = ("prometheus", PASSWORD)
#: One check takes a good part of a second.
DEAR = 12


@asynccontextmanager
async def guarded(access: Access, *, only_metrics: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """Serve by the access's rules, and give a client that trusts our certificates."""
    watched = Watched()
    registry = CollectorRegistry()
    registry.register(watched)
    if only_metrics:
        app = metrics_app(
            registry=registry, states=lambda: watched.state, health=passed, readiness=passed, access=access
        )
    else:
        app = web_app(
            version="1.2.3",
            registry=registry,
            states=lambda: watched.state,
            health=passed,
            readiness=passed,
            access=access,
        )
    listener = bind("127.0.0.1", 0)
    trust = ssl.create_default_context()
    authority(OURS).configure_trust(trust)
    tls = access.tls if access.scheme == "https" else None
    async with (
        serving(app, listener, tls=tls),
        httpx.AsyncClient(base_url=url(listener, scheme=access.scheme), verify=trust, timeout=30) as client,
    ):
        try:
            yield client
        finally:
            access.close()


async def status(client: httpx.AsyncClient, path: str = "/metrics", auth: tuple[str, str] | None = None) -> int:
    """Ask, and return the status; each time on a connection of its own."""
    return (await client.get(path, auth=auth, headers={"Connection": "close"})).status_code
