"""Tests that return what they take, also what looks like a leak. They are run by tests of the plugin."""

import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgwatch_sessions.pools import instrument

DSN = os.environ["TEST_DSN"]
PSYCOPG = DSN.replace("postgresql:", "postgresql+psycopg:")
ASYNCPG = DSN.replace("postgresql:", "postgresql+asyncpg:")
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine whose pool keeps open connections between tests."""
    engine = create_engine(PSYCOPG)
    instrument(engine, name="shared")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection that the tests of a module share, in one transaction."""
    with engine.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def session(engine: Engine) -> Iterator[Session]:
    """A session that takes its connection at the first statement, in a test."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def in_savepoint(connection: Connection) -> Iterator[Session]:
    """A session inside the shared transaction: its commits are savepoints."""
    with Session(connection, join_transaction_mode="create_savepoint") as inner:
        yield inner


@pytest.fixture(scope="session")
async def async_engine() -> AsyncIterator[AsyncEngine]:
    """An async engine."""
    engine = create_async_engine(ASYNCPG)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def pool() -> AsyncIterator[asyncpg.Pool]:
    """An asyncpg pool that keeps open connections between tests."""
    async with asyncpg.create_pool(DSN, min_size=2) as pool:
        instrument(pool, name="asyncpg")
        yield pool


@pytest.fixture(scope="session")
async def own_pool() -> AsyncIterator[asyncpg.Pool]:
    """A pool whose connections have a class of the application, opened in the test."""
    async with asyncpg.create_pool(DSN, min_size=0, connection_class=OwnConnection) as pool:
        yield pool


@pytest.fixture(scope="session")
def psycopg_connections() -> Iterator[psycopg_pool.ConnectionPool]:
    """A psycopg pool; its threads open connections at any time."""
    with psycopg_pool.ConnectionPool(DSN, min_size=2, max_size=4) as pool:
        yield pool


@pytest.mark.parametrize("_number", range(2))
def test_shared_session(session: Session, _number: int) -> None:
    """The first of the two takes the connection."""
    session.execute(text("SELECT 1"))


@pytest.mark.parametrize("_number", range(2))
def test_shared_transaction(in_savepoint: Session, _number: int) -> None:
    """The connection was taken by a fixture of the module."""
    in_savepoint.execute(text("SELECT 1"))
    in_savepoint.commit()


def test_last_reference(engine: Engine) -> None:
    """A connection that is dropped at once, in the same way each time."""
    connection = engine.raw_connection()
    connection.cursor().execute("SELECT 1")


def test_invalidated(engine: Engine) -> None:
    """A connection that was found broken."""
    with engine.connect() as connection:
        connection.invalidate()


def test_detached_and_closed(engine: Engine) -> None:
    """A connection that left its pool."""
    with engine.connect() as connection:
        connection.detach()


async def test_async_session(async_engine: AsyncEngine) -> None:
    """An async session in a block."""
    async with AsyncSession(async_engine) as session:
        await session.execute(text("SELECT 1"))


async def test_asyncpg_pool(pool: asyncpg.Pool) -> None:
    """Acquired and released."""
    async with pool.acquire() as connection:
        await connection.execute("SELECT 1")


class OwnConnection(asyncpg.Connection):
    """A class of the application, made by a pool."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.reads = 0


async def test_pool_with_a_class_of_the_application(own_pool: asyncpg.Pool) -> None:
    """Its connections rest in the pool."""
    async with own_pool.acquire() as connection:
        await connection.execute("SELECT 1")


async def test_killed_connection_of_a_pool() -> None:
    """Its place in the pool is free again."""
    async with asyncpg.create_pool(DSN, min_size=0, max_size=1) as pool:
        connection = await pool.acquire()
        connection.terminate()


async def test_asyncpg_connection() -> None:
    """Closed."""
    connection = await asyncpg.connect(DSN)
    await connection.close()


def test_psycopg_pool(psycopg_connections: psycopg_pool.ConnectionPool) -> None:
    """More connections than the pool has open; one is put back by hand."""
    with psycopg_connections.connection(), psycopg_connections.connection(), psycopg_connections.connection():
        pass
    psycopg_connections.putconn(psycopg_connections.getconn())


def test_psycopg_connection() -> None:
    """Closed by its block."""
    with psycopg.connect(DSN) as connection:
        connection.execute("SELECT 1")


def test_returned_a_moment_later(engine: Engine) -> None:
    """A server's thread returns its connection after the answer has reached the test."""
    taken = threading.Event()

    def serve() -> None:
        with engine.connect():
            taken.set()
            time.sleep(0.2)

    threading.Thread(target=serve).start()
    taken.wait()


@pytest.mark.allow_connection_leaks("the application keeps one connection for notifications")
def test_allowed() -> None:
    """Kept on purpose."""
    KEPT.append(psycopg.connect(DSN))


KEPT: list[psycopg.Connection] = []
