"""Tests that each leave one connection out, in the line that is marked. They are run by tests of the plugin."""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from pgwatch_sessions.pools import instrument, tag_statements, tagged_connection

DSN = os.environ["TEST_DSN"]
PSYCOPG = DSN.replace("postgresql:", "postgresql+psycopg:")
ASYNCPG = DSN.replace("postgresql:", "postgresql+asyncpg:")
#: Keeps what has leaked, as a list or a cache of an application does.
KEPT: list[Any] = []
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


def test_session() -> None:
    """An unclosed session, which nothing refers to any more but its own cycle."""
    session = Session(create_engine(PSYCOPG))
    session.execute(text("SELECT 1"))  # leak


def test_session_that_the_collector_finds() -> None:
    """The collector may run at any time, so it must not make a difference."""
    session = Session(create_engine(PSYCOPG))
    session.execute(text("SELECT 1"))  # leak
    del session
    gc.collect()


def test_engine_connection() -> None:
    """A connection that is kept."""
    KEPT.append(create_engine(PSYCOPG).connect())  # leak


def test_null_pool() -> None:
    """A pool that keeps nothing."""
    KEPT.append(create_engine(PSYCOPG, poolclass=NullPool).connect())  # leak


def test_static_pool() -> None:
    """A pool of one connection."""
    KEPT.append(create_engine(PSYCOPG, poolclass=StaticPool).connect())  # leak


def test_creator() -> None:
    """A pool whose connections a function of the application opens."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(DSN))
    KEPT.append(engine.connect())  # leak


def test_detached() -> None:
    """A connection that left its pool and is not closed."""
    connection = create_engine(PSYCOPG).connect()  # leak
    connection.detach()
    KEPT.append(connection)


def test_in_a_thread() -> None:
    """A connection that another thread took."""
    engine = create_engine(PSYCOPG)

    def work() -> None:
        KEPT.append(engine.connect())  # leak

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


async def test_async_session() -> None:
    """An unclosed async session."""
    session = AsyncSession(create_async_engine(ASYNCPG))
    await session.execute(text("SELECT 1"))  # leak
    KEPT.append(session)


async def test_async_session_of_psycopg() -> None:
    """The same on the other driver."""
    session = AsyncSession(create_async_engine(PSYCOPG))
    await session.execute(text("SELECT 1"))  # leak
    KEPT.append(session)


async def test_asyncpg_connection() -> None:
    """A plain connection."""
    KEPT.append(await asyncpg.connect(DSN))  # leak


async def test_asyncpg_connection_with_a_time_out() -> None:
    """`wait_for` runs what it is given in a task of its own, up to Python 3.11."""
    KEPT.append(await asyncpg.connect(DSN, timeout=5))  # leak


async def test_asyncpg_pool() -> None:
    """A connection that is not released."""
    pool = await asyncpg.create_pool(DSN, min_size=1)
    KEPT.append((pool, await pool.acquire()))  # leak


async def test_asyncpg_pool_with_a_time_out() -> None:
    """The same with a limit on the wait."""
    pool = await asyncpg.create_pool(DSN, min_size=1)
    KEPT.append((pool, await pool.acquire(timeout=5)))  # leak


def test_psycopg_connection() -> None:
    """A plain connection."""
    KEPT.append(psycopg.connect(DSN))  # leak


async def test_async_psycopg_connection() -> None:
    """A plain async connection."""
    KEPT.append(await psycopg.AsyncConnection.connect(DSN))  # leak


def test_psycopg_pool() -> None:
    """A connection that is not put back."""
    with psycopg_pool.ConnectionPool(DSN, min_size=1) as pool:
        KEPT.append(pool.getconn())  # leak


def test_closed_but_not_put_back() -> None:
    """The pool still counts it as out, unless the pool has another rule."""
    pool = psycopg_pool.ConnectionPool(DSN, min_size=1)
    pool.getconn().close()  # leak
    KEPT.append(pool)


async def test_async_psycopg_pool() -> None:
    """The same, async."""
    async with psycopg_pool.AsyncConnectionPool(DSN, min_size=1) as pool:
        KEPT.append(await pool.getconn())  # leak


async def test_cancelled_task() -> None:
    """A task that is cancelled between taking and returning."""
    pool = await asyncpg.create_pool(DSN, min_size=1)

    async def work() -> None:
        connection = await pool.acquire()  # leak
        await asyncio.sleep(60)
        await pool.release(connection)

    task = asyncio.create_task(work())
    while pool.get_idle_size():  # noqa: ASYNC110  # asyncpg has nothing to await
        await asyncio.sleep(0.01)
    task.cancel()
    KEPT.append(pool)


def test_instrumented_engine() -> None:
    """The pool's own ledger and the check do not get in each other's way."""
    engine = create_engine(PSYCOPG)
    instrument(engine, name="leaks")
    KEPT.append(engine.connect())  # leak


async def test_instrumented_asyncpg_pool() -> None:
    """The same for asyncpg."""
    pool = await asyncpg.create_pool(DSN, min_size=1)
    instrument(pool, name="asyncpg leaks")
    KEPT.append((pool, await pool.acquire()))  # leak


def test_tagged_engine() -> None:
    """Tags change statements only."""
    engine = create_engine(PSYCOPG)
    tag_statements(engine, application="leaks")
    session = Session(engine)
    session.execute(text("SELECT 1"))  # leak


async def test_tagged_connection() -> None:
    """The same for asyncpg."""
    pool = await asyncpg.create_pool(DSN, min_size=1, connection_class=tagged_connection(application="leaks"))
    KEPT.append((pool, await pool.acquire()))  # leak


def test_instrumented_psycopg_pool() -> None:
    """The same for psycopg."""
    with psycopg_pool.ConnectionPool(DSN, min_size=1) as pool:
        instrument(pool, name="psycopg leaks")
        KEPT.append(pool.getconn())  # leak


def test_failing() -> None:
    """A test that fails is also checked."""
    session = sessionmaker(create_engine(PSYCOPG))()
    session.execute(text("SELECT 1"))  # leak
    raise AssertionError("the test's own failure")


@pytest.fixture
async def forgetful() -> AsyncIterator[asyncpg.Connection]:
    """A fixture that does not close what it opens."""
    connection = await asyncpg.connect(DSN)  # leak
    yield connection
    KEPT.append(connection)


async def test_fixture(forgetful: asyncpg.Connection) -> None:
    """The fixture's line is reported."""
    await forgetful.execute("SELECT 1")
