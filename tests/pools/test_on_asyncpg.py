import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from pgwatch_sessions.pools import PoolHandle, instrument
from tests.support.servers import Database
from tests.support.waiting import until

Pool = asyncpg.Pool


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """Return a pool of up to two connections."""
    pool = await asyncpg.create_pool(database.dsn(), min_size=0, max_size=2)
    yield pool
    pool.terminate()


@pytest.fixture
def handle(pool: Pool) -> Iterator[PoolHandle]:
    """Return the handle of the pool."""
    handle = instrument(pool, name="orders")
    yield handle
    handle.close()


def _used_and_idle(handle: PoolHandle) -> tuple[int, int]:
    now = handle.snapshot()
    return now.used, now.idle


async def test_an_acquired_connection_is_used_until_it_is_released(pool: Pool, handle: PoolHandle) -> None:
    """The pool's own methods count, too."""
    async with pool.acquire() as connection:
        assert _used_and_idle(handle) == (1, 0)
        assert await connection.fetchval("SELECT 1") == 1
        assert await pool.fetchval("SELECT 1") == 1
        assert _used_and_idle(handle) == (1, 1)
    now = handle.snapshot()
    assert (now.used, now.idle, now.use_time.count, now.wait_time.count, now.create_time.count) == (0, 2, 2, 2, 2)
    assert (now.limits.max, now.limits.idle_min, now.overflow) == (2, 0, None)


async def test_the_borrower_is_the_line_that_acquired(pool: Pool, handle: PoolHandle) -> None:
    """Also through `asyncio.wait_for`, which awaits it in another task before Python 3.12."""

    async def read_order() -> asyncpg.pool.PoolConnectionProxy:
        return await pool.acquire()

    async def read_with_a_deadline() -> asyncpg.pool.PoolConnectionProxy:
        return await asyncio.wait_for(pool.acquire(), 5)

    await read_order()
    await read_with_a_deadline()
    functions = [borrowed.site and borrowed.site.function for borrowed in handle.borrowed()]
    assert functions == [f"{read_order.__name__}", f"{read_with_a_deadline.__name__}"]


async def test_time_outs_and_cancelled_waits_are_told_apart(pool: Pool, handle: PoolHandle) -> None:
    """`acquire(timeout=…)` raises TimeoutError, `asyncio.timeout` cancels."""
    async with pool.acquire(), pool.acquire():
        with pytest.raises(TimeoutError):
            await pool.acquire(timeout=0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pool.acquire()
    now = handle.snapshot()
    assert (now.timed_out, now.cancelled_waits, now.pending, now.used) == (1, 1, 0, 0)


async def test_a_connection_that_is_closed_while_it_is_out_is_not_used_any_more(pool: Pool, handle: PoolHandle) -> None:
    """It is never released."""
    connection = await pool.acquire()
    await connection.close()
    assert _used_and_idle(handle) == (0, 0)
    assert handle.borrowed() == ()


async def test_a_connection_that_is_killed_while_it_is_out_is_not_used_any_more(
    pool: Pool, handle: PoolHandle, database: Database
) -> None:
    """The place in the pool is free, and a new connection takes it."""
    victim = await pool.acquire()
    other = await asyncpg.connect(database.dsn())
    await other.execute("SELECT pg_terminate_backend($1)", victim.get_server_pid())
    await asyncio.to_thread(until, lambda: not handle.snapshot().used)
    await pool.release(victim)
    async with pool.acquire():
        assert handle.snapshot().used == 1
    await other.close()


async def test_a_release_that_is_cancelled_ends_the_borrow_when_it_is_done(pool: Pool, handle: PoolHandle) -> None:
    """Asyncpg shields it."""
    connection = await pool.acquire()
    releasing = asyncio.ensure_future(pool.release(connection))
    await asyncio.sleep(0)
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    await asyncio.to_thread(until, lambda: not handle.snapshot().used)
    assert handle.snapshot().use_time.count == 1


async def test_a_second_release_and_one_of_another_pool_change_nothing(pool: Pool, handle: PoolHandle) -> None:
    """Asyncpg's errors are unchanged."""
    connection = await pool.acquire()
    await pool.release(connection)
    await pool.release(connection)
    with pytest.raises(asyncpg.InterfaceError, match="not a member"):
        await pool.release(object())  # type: ignore[arg-type]  # the mistake that is tested
    assert (handle.snapshot().used, handle.snapshot().use_time.count) == (0, 1)


async def test_a_closed_pool_has_nothing_and_refuses_as_before(pool: Pool, handle: PoolHandle) -> None:
    """Its numbers stay readable."""
    await pool.close()
    assert _used_and_idle(handle) == (0, 0)
    with pytest.raises(asyncpg.InterfaceError, match="pool is clos"):
        await pool.acquire()
    assert handle.snapshot().failed_waits == 1


async def test_a_pool_is_instrumented_once_and_left_as_it_was(pool: Pool, handle: PoolHandle) -> None:
    """The second call returns the first handle."""
    assert instrument(pool, name="other") is handle
    assert handle.name == "orders"
    handle.close()
    assert type(pool) is asyncpg.Pool
    async with pool.acquire():
        assert handle.borrowed() == ()


async def test_a_pool_has_a_name_without_password(database: Database) -> None:
    """It is made of host, port and database."""
    port = database.server.port
    for pool in (
        asyncpg.create_pool(f"postgresql://me:secret@127.0.0.1:{port}/shop"),
        asyncpg.create_pool(host="127.0.0.1", port=port, database="shop", password="secret"),
    ):
        handle = instrument(pool)
        assert handle.name == f"127.0.0.1:{port}/shop"
        handle.close()
