import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool, NullConnectionPool, PoolClosed, PoolTimeout

from pgwatch_sessions.pools import PoolHandle, instrument
from tests.support.servers import Database
from tests.support.waiting import until

# In quotes: the classes of psycopg_pool 3.1 take no parameter.
Pool: TypeAlias = "ConnectionPool[psycopg.Connection[Any]]"
AsyncPool: TypeAlias = "AsyncConnectionPool[psycopg.AsyncConnection[Any]]"


@pytest.fixture
def pool(database: Database) -> Iterator[Pool]:
    """Return a pool of one to two connections."""
    with ConnectionPool(database.dsn(), min_size=1, max_size=2, name="orders", timeout=5) as pool:
        pool.wait()
        yield pool


@pytest.fixture
def handle(pool: Pool) -> Iterator[PoolHandle]:
    """Return the handle of the pool."""
    handle = instrument(pool)
    yield handle
    handle.close()


@pytest.fixture
async def async_pool(database: Database) -> AsyncIterator[AsyncPool]:
    """Return a pool of one to two connections."""
    async with AsyncConnectionPool(database.dsn(), min_size=1, max_size=2, name="orders", timeout=5) as pool:
        await pool.wait()
        yield pool


def _used_and_idle(handle: PoolHandle) -> tuple[int, int]:
    now = handle.snapshot()
    return now.used, now.idle


def test_a_connection_is_used_until_it_is_returned(pool: Pool, handle: PoolHandle) -> None:
    """The name and the limits are the pool's own."""

    def read_order() -> None:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
            (borrowed,) = handle.borrowed()
            assert borrowed.site is not None
            assert borrowed.site.function == "read_order"
            assert _used_and_idle(handle) == (1, 0)

    read_order()
    now = handle.snapshot()
    assert (now.name, now.limits.max, now.limits.idle_min) == ("orders", 2, 1)
    assert (now.used, now.idle, now.wait_time.count, now.use_time.count) == (0, 1, 1, 1)


def test_a_time_out_and_a_closed_pool_are_told_apart(pool: Pool, handle: PoolHandle) -> None:
    """The exceptions are unchanged."""
    with pool.connection(), pool.connection(), pytest.raises(PoolTimeout):
        pool.getconn(timeout=0.01)
    pool.close()
    with pytest.raises(PoolClosed):
        pool.getconn()
    now = handle.snapshot()
    assert (now.timed_out, now.failed_waits, now.used, now.idle) == (1, 1, 0, 0)


def test_a_connection_that_is_dropped_was_returned_by_the_garbage_collector(pool: Pool, handle: PoolHandle) -> None:
    """Its place in the pool is lost: only another `getconn()` that times out shows it."""
    connection = pool.getconn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del connection
        gc.collect()
    assert (handle.snapshot().collected, handle.snapshot().used) == (1, 0)


def test_a_connection_that_is_closed_while_it_is_out_is_used_until_it_is_returned(
    pool: Pool, handle: PoolHandle
) -> None:
    """The pool replaces it only then."""
    connection = pool.getconn()
    connection.close()
    assert handle.snapshot().used == 1
    pool.putconn(connection)
    until(lambda: _used_and_idle(handle) == (0, 1))


def test_a_connection_of_nobody_is_refused_as_before(pool: Pool, handle: PoolHandle, database: Database) -> None:
    """Nothing is counted."""
    with psycopg.connect(database.dsn()) as connection, pytest.raises(ValueError, match="come from any pool"):
        pool.putconn(connection)
    assert handle.snapshot().use_time.count == 0


def test_a_thread_that_waits_is_pending(pool: Pool, handle: PoolHandle) -> None:
    """It is pending until it has its connection."""
    with pool.connection(), pool.connection():
        thread = threading.Thread(target=lambda: pool.putconn(pool.getconn()))
        thread.start()
        until(lambda: handle.snapshot().pending == 1)
    thread.join()
    assert handle.snapshot().pending == 0


def test_a_pool_that_keeps_no_connection_has_none_idle(database: Database) -> None:
    """A maximum of 0 means no limit."""
    with NullConnectionPool(database.dsn(), max_size=0, open=True) as pool:
        handle = instrument(pool)
        with pool.connection():
            assert _used_and_idle(handle) == (1, 0)
        assert _used_and_idle(handle) == (0, 0)
        limits = handle.snapshot().limits
        assert (limits.max, limits.idle_max) == (None, 0)


def test_a_closed_handle_leaves_the_pool_as_it_was(pool: Pool, handle: PoolHandle) -> None:
    """It goes on without being watched."""
    assert instrument(pool) is handle
    handle.close()
    assert type(pool) is ConnectionPool
    with pool.connection():
        assert handle.borrowed() == ()


async def test_an_async_pool_is_counted_with_the_line_that_borrows(async_pool: AsyncPool) -> None:
    """Time-outs and cancelled waits are told apart."""
    handle = instrument(async_pool)

    async def read_order() -> None:
        async with async_pool.connection() as connection:
            await connection.execute("SELECT 1")
            (borrowed,) = handle.borrowed()
            assert borrowed.site is not None
            assert borrowed.site.function == "read_order"

    await read_order()
    async with async_pool.connection(), async_pool.connection():
        assert handle.snapshot().used == 2
        with pytest.raises(PoolTimeout):
            await async_pool.getconn(timeout=0.01)
        waiting = asyncio.ensure_future(async_pool.getconn())
        await asyncio.to_thread(until, lambda: handle.snapshot().pending)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    now = handle.snapshot()
    assert (now.timed_out, now.cancelled_waits, now.pending, now.used, now.wait_time.count) == (1, 1, 0, 0, 3)
