from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from sqlalchemy import Connection, Engine, create_engine
from starlette.applications import Starlette
from starlette.routing import Mount

from pgwatch_sessions.pools import instrument, uninstrument
from pgwatch_sessions.pools.asgi import pools_app
from pgwatch_sessions.pools.ledger import current_tags
from tests.support.servers import Database


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """Return an engine of one to two connections."""
    engine = create_engine(database.dsn().replace("postgresql:", "postgresql+psycopg:"), pool_size=1, max_overflow=1)
    instrument(engine, name="shown orders", capture="stack")
    yield engine
    uninstrument(engine)
    engine.dispose()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application that mounts it."""
    transport = httpx.ASGITransport(Starlette(routes=[Mount("/debug/pools", pools_app)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://orders") as client:
        yield client


def borrow(engine: Engine) -> Connection:
    """Borrow a connection one call deeper than the test."""
    return engine.connect()


async def test_the_document_has_each_pool_and_its_borrowers(engine: Engine, client: httpx.AsyncClient) -> None:
    """With file, line, function, stack, tags and age."""
    token = current_tags.set(lambda: {"route": "/orders/{id}"})
    with borrow(engine):
        response = await client.get("/debug/pools/")
    current_tags.reset(token)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    (pool,) = [pool for pool in response.json()["pools"] if pool["name"] == "shown orders"]
    assert (pool["kind"], pool["used"], pool["idle"], pool["max"]) == ("sqlalchemy QueuePool", 1, 0, 2)
    assert pool["wait_time"]["count"] == 1
    (borrowed,) = pool["borrowed"]
    assert borrowed["site"] == borrowed["stack"][0]
    assert borrowed["site"]["file"] == "tests/pools/test_asgi.py"
    functions = [site["function"] for site in borrowed["stack"]]
    assert functions[:2] == ["borrow", "test_the_document_has_each_pool_and_its_borrowers"]
    assert (borrowed["tags"], borrowed["detached"]) == ({"route": "/orders/{id}"}, False)
    assert 0 <= borrowed["age_seconds"] < 60


async def test_young_borrowers_are_left_out_on_request(engine: Engine, client: httpx.AsyncClient) -> None:
    """The numbers of the pool stay."""
    with engine.connect():
        document = (await client.get("/debug/pools/?older_than=600")).json()
    (pool,) = [pool for pool in document["pools"] if pool["name"] == "shown orders"]
    assert (pool["used"], pool["borrowed"]) == (1, [])


@pytest.mark.parametrize(
    ("method", "query", "status", "error"),
    [("GET", "?older_than=old", 400, "older_than=old: use a number of seconds"), ("POST", "", 405, "use GET")],
)
async def test_a_wrong_request_is_answered_with_what_to_do(
    client: httpx.AsyncClient, method: str, query: str, status: int, error: str
) -> None:
    """It is a JSON document, too."""
    response = await client.request(method, f"/debug/pools/{query}")
    assert (response.status_code, response.json()) == (status, {"error": error})


async def test_head_has_no_body(client: httpx.AsyncClient) -> None:
    """As HTTP has it."""
    response = await client.head("/debug/pools/")
    assert (response.status_code, response.content) == (200, b"")
