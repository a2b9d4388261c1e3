import asyncio
import gc
import os
import re
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool

from pgwatch_sessions.pools import PoolHandle, instrument, uninstrument
from tests.support.servers import Database
from tests.support.waiting import until

MakeEngine = Callable[..., tuple[Engine, PoolHandle]]


@pytest.fixture
def make(database: Database) -> Iterator[MakeEngine]:
    """Return a function that makes an instrumented engine; the test's end disposes of it."""
    engines: list[Engine] = []

    def made(**options: Any) -> tuple[Engine, PoolHandle]:
        engine = create_engine(_url(database, "psycopg"), **options)
        engines.append(engine)
        return engine, instrument(engine, name="orders")

    yield made
    for engine in engines:
        uninstrument(engine)
        engine.dispose()


@pytest.fixture
async def async_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """Return an engine with asyncpg, of one connection."""
    engine = create_async_engine(_url(database, "asyncpg"), pool_size=1, max_overflow=0, pool_timeout=0.1)
    yield engine
    await engine.dispose()


def _url(database: Database, driver: str) -> str:
    return re.sub("^postgresql:", f"postgresql+{driver}:", database.dsn())


def _sessions(database: Database) -> int:
    """Return how many sessions the server has in the database."""
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [database.name]).fetchone()
    assert row is not None
    return int(row[0])


def _used_and_idle(handle: PoolHandle) -> tuple[int, int]:
    now = handle.snapshot()
    return now.used, now.idle


POOLS = (QueuePool, NullPool, StaticPool, AssertionPool, SingletonThreadPool)


@pytest.mark.parametrize("pool", POOLS)
def test_every_class_of_pool_is_counted_and_keeps_its_name(make: MakeEngine, pool: Any) -> None:
    """The connection that came back is idle, unless the pool keeps none."""
    engine, handle = make(poolclass=pool)
    with engine.connect():
        assert _used_and_idle(handle) == (1, 0)
        assert handle.snapshot().kind == f"sqlalchemy {pool.__name__}"
    assert _used_and_idle(handle) == (0, 0 if pool is NullPool else 1)
    assert type(engine.pool).__name__ == pool.__name__
    assert isinstance(engine.pool, pool)
    assert handle.snapshot().wait_time.count == (pool is not SingletonThreadPool)


def test_the_limits_are_the_pools_own(make: MakeEngine) -> None:
    """A pool without limits has none."""
    limits = make(pool_size=2, max_overflow=3)[1].snapshot().limits
    assert (limits.size, limits.max, limits.idle_max) == (2, 5, 2)
    assert make(pool_size=2, max_overflow=-1)[1].snapshot().limits.max is None
    assert make(pool_size=0)[1].snapshot().limits.max is None
    assert make(poolclass=NullPool)[1].snapshot().limits.idle_max == 0


def test_overflow_is_what_is_open_above_the_size(make: MakeEngine, database: Database) -> None:
    """It is closed when it comes back."""
    engine, handle = make(pool_size=1, max_overflow=2)
    connections = [engine.connect() for _ in range(3)]
    assert (handle.snapshot().overflow, _sessions(database)) == (2, 3)
    for connection in connections:
        connection.close()
    assert (handle.snapshot().overflow, *_used_and_idle(handle)) == (0, 0, 1)
    until(lambda: _sessions(database) == 1)


def test_a_time_out_is_counted_and_its_exception_is_unchanged(make: MakeEngine) -> None:
    """SQLAlchemy has no event for it."""
    engine, handle = make(pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(exc.TimeoutError, match="QueuePool limit of size 1"):
        engine.connect()
    now = handle.snapshot()
    assert (now.timed_out, now.pending, now.wait_time.count) == (1, 0, 1)


def test_a_thread_that_waits_is_pending(make: MakeEngine) -> None:
    """It is pending until the other one returns its connection."""
    engine, handle = make(pool_size=1, max_overflow=0)
    with engine.connect():
        thread = threading.Thread(target=lambda: engine.connect().close())
        thread.start()
        until(lambda: handle.snapshot().pending == 1)
    thread.join()
    assert (handle.snapshot().pending, handle.snapshot().wait_time.count) == (0, 2)


def test_a_refused_connect_is_a_failed_wait(make: MakeEngine) -> None:
    """Nothing was borrowed."""
    engine, handle = make(connect_args={"port": 1})
    with pytest.raises(exc.OperationalError):
        engine.connect()
    assert (handle.snapshot().failed_waits, *_used_and_idle(handle)) == (1, 0, 0)


def test_a_session_that_the_garbage_collector_returns_is_told_from_one_that_was_closed(make: MakeEngine) -> None:
    """An unclosed Session is a cycle."""
    engine, handle = make()
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
    session = Session(engine)
    session.execute(text("SELECT 1"))
    assert handle.snapshot().used == 1
    del session
    gc.collect()
    assert (handle.snapshot().collected, *_used_and_idle(handle)) == (1, 0, 1)


def test_an_invalidated_connection_leaves_the_pool_and_the_next_one_replaces_it(
    make: MakeEngine, database: Database
) -> None:
    """SQLAlchemy checks in its record without a connection."""
    engine, handle = make()
    with engine.connect() as connection:
        connection.invalidate()
        assert _used_and_idle(handle) == (0, 0)
    with engine.connect():
        assert _used_and_idle(handle) == (1, 0)
    assert (handle.snapshot().create_time.count, _sessions(database)) == (2, 1)


def test_a_killed_session_is_not_idle(make: MakeEngine, database: Database) -> None:
    """The application learns of it from the error of its query."""
    engine, handle = make()
    connection = engine.connect()
    connection.execute(text("SELECT 1"))
    with psycopg.connect(database.server.dsn(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database.name])
    with pytest.raises(exc.DBAPIError):
        connection.execute(text("SELECT 1"))
    connection.close()
    assert _used_and_idle(handle) == (0, 0)


def test_a_detached_connection_is_listed_with_its_line_until_it_is_closed(make: MakeEngine, database: Database) -> None:
    """The pool does not know it any more, and its event checkin never comes."""
    engine, handle = make()
    connection = engine.connect()
    connection.detach()
    (borrowed,) = handle.borrowed()
    assert borrowed.site is not None
    assert (borrowed.detached, borrowed.site.function) == (
        True,
        "test_a_detached_connection_is_listed_with_its_line_until_it_is_closed",
    )
    assert (_used_and_idle(handle), _sessions(database)) == ((0, 0), 1)
    connection.close()
    assert (handle.borrowed(), handle.snapshot().detached, handle.snapshot().detached_open) == ((), 1, 0)


def test_a_detached_connection_that_is_dropped_was_returned_by_the_garbage_collector(make: MakeEngine) -> None:
    """SQLAlchemy sends no event when it is dropped."""
    engine, handle = make()
    connection = engine.connect()
    connection.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del connection
        gc.collect()
    assert (handle.snapshot().detached_open, handle.snapshot().collected) == (0, 1)


def test_a_disposed_engine_goes_on_with_its_new_pool(make: MakeEngine, database: Database) -> None:
    """A connection that is out during `dispose()` stays used until it comes back to the old pool."""
    engine, handle = make()
    connection = engine.connect()
    with engine.connect():
        pass
    assert _used_and_idle(handle) == (1, 1)
    engine.dispose()
    assert (_used_and_idle(handle), _sessions(database)) == ((1, 0), 1)
    with engine.connect():
        assert _used_and_idle(handle) == (2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        connection.close()
        del connection
        gc.collect()
    assert (_used_and_idle(handle), _sessions(database)) == ((0, 1), 1)


def test_a_static_pool_has_one_connection_and_all_its_borrowers(make: MakeEngine) -> None:
    """SQLAlchemy reports only one of the two returns."""
    engine, handle = make(poolclass=StaticPool)
    first, second = engine.connect(), engine.connect()
    assert (_used_and_idle(handle), len(handle.borrowed())) == ((1, 0), 2)
    first.close()
    assert (_used_and_idle(handle), len(handle.borrowed())) == ((1, 0), 1)
    second.close()
    assert (_used_and_idle(handle), len(handle.borrowed())) == ((0, 1), 0)
    third = engine.connect()
    del third
    gc.collect()
    assert _used_and_idle(handle) == (0, 1)


def test_a_listener_of_others_that_raises_does_not_make_the_ledger_drift(make: MakeEngine) -> None:
    """SQLAlchemy invalidates the connection at a checkout that raises."""
    engine, handle = make()

    def refuse(*_: object) -> None:
        raise RuntimeError("refused")

    event.listen(engine, "checkout", refuse)
    with pytest.raises(RuntimeError):
        engine.connect()
    assert (_used_and_idle(handle), handle.snapshot().failed_waits) == ((0, 0), 1)
    event.remove(engine, "checkout", refuse)
    event.listen(engine, "connect", refuse)
    with pytest.raises(RuntimeError):
        engine.connect()
    assert _used_and_idle(handle) == (0, 0)


def test_a_pool_class_that_cannot_be_subclassed_is_counted_without_waits(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """That is said once."""

    class Final(QueuePool):
        def __init_subclass__(cls) -> None:
            raise TypeError("final")

    engine = create_engine(_url(database, "psycopg"), poolclass=Final)
    handle = instrument(engine)
    try:
        with engine.connect():
            assert _used_and_idle(handle) == (1, 0)
        assert _used_and_idle(handle) == (0, 1)
        assert handle.snapshot().wait_time.count == 0
        assert instrument(engine) is handle
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "class Final cannot be subclassed: final" in caplog.text
    finally:
        handle.close()
        engine.dispose()


def test_a_closed_handle_leaves_the_engine_as_it_was(make: MakeEngine) -> None:
    """A new one begins from 0, and connections that are open count from their next checkout on."""
    engine, handle = make()
    engine.connect().close()
    engine.dispose()
    handle.close()
    handle.close()
    assert type(engine.pool) is QueuePool
    with engine.connect():
        assert _used_and_idle(handle) == (0, 0)
    again = instrument(engine)
    assert again is not handle
    with engine.connect():
        assert _used_and_idle(again) == (1, 0)


def test_the_borrower_of_a_lazy_session_is_the_line_that_first_used_it(make: MakeEngine) -> None:
    """A Session borrows at its first statement."""
    engine, handle = make()

    def read_order(session: Session) -> None:
        session.execute(text("SELECT 1"))

    with Session(engine) as session:
        read_order(session)
        (borrowed,) = handle.borrowed()
    assert borrowed.site is not None
    assert str(borrowed.site).startswith("tests/pools/test_on_sqlalchemy.py:")
    assert borrowed.site.function == "read_order"


def test_the_child_of_a_fork_counts_its_own_connections(make: MakeEngine) -> None:
    """It replaces the pool, as SQLAlchemy's documentation says, without closing the parent's connections."""
    engine, handle = make()
    reading, writing = os.pipe()
    with engine.connect():
        pid = os.fork()
        if pid == 0:
            engine.dispose(close=False)
            before = _used_and_idle(handle)
            with engine.connect():
                during = _used_and_idle(handle)
            os.write(writing, repr((before, during, _used_and_idle(handle))).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert _used_and_idle(handle) == (1, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"((0, 0), (1, 0), (0, 1))"


async def test_an_async_engine_is_counted_with_the_line_that_awaits(async_engine: AsyncEngine) -> None:
    """The stack goes through a greenlet."""
    handle = instrument(async_engine)

    async def read_order(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))

    async with AsyncSession(async_engine) as session:
        await read_order(session)
        (borrowed,) = handle.borrowed()
        assert _used_and_idle(handle) == (1, 0)
    assert borrowed.site is not None
    assert borrowed.site.function == "read_order"
    assert (_used_and_idle(handle), handle.snapshot().kind) == ((0, 1), "sqlalchemy AsyncAdaptedQueuePool")


async def test_time_outs_and_cancelled_waits_of_an_async_engine_are_told_apart(async_engine: AsyncEngine) -> None:
    """A cancelled request is not a pool that is too small."""
    handle = instrument(async_engine)
    async with async_engine.connect():
        with pytest.raises(exc.TimeoutError):
            await async_engine.connect()
        waiting = asyncio.ensure_future(async_engine.connect().start())
        await asyncio.to_thread(until, lambda: handle.snapshot().pending)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    now = handle.snapshot()
    assert (now.timed_out, now.cancelled_waits, now.pending) == (1, 1, 0)
    assert _used_and_idle(handle) == (0, 1)


async def test_a_cancelled_query_of_an_async_engine_ends_its_borrow(
    async_engine: AsyncEngine, database: Database
) -> None:
    """SQLAlchemy invalidates the connection, because its state is not known."""
    handle = instrument(async_engine)

    async def sleep() -> None:
        async with async_engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.ensure_future(sleep())
    await asyncio.to_thread(until, lambda: handle.snapshot().used)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    used, idle = _used_and_idle(handle)
    assert used == 0
    await asyncio.to_thread(until, lambda: _sessions(database) == idle)


async def test_an_async_session_that_is_dropped_was_returned_by_the_garbage_collector(
    async_engine: AsyncEngine, database: Database
) -> None:
    """SQLAlchemy detaches the connection instead of checking it in."""
    handle = instrument(async_engine)
    session = AsyncSession(async_engine)
    await session.execute(text("SELECT 1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del session
        gc.collect()
    assert (handle.snapshot().collected, *_used_and_idle(handle)) == (1, 0, 0)
    await asyncio.to_thread(until, lambda: _sessions(database) == 0)
