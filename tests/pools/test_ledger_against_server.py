"""Random sequences of what applications do with a pool: after each step the ledger agrees with the server."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import ConnectionPool, PoolTimeout
from sqlalchemy import Connection, Engine, create_engine, exc, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.pools import PoolHandle, instrument, uninstrument
from tests.support.servers import Database, fresh_database
from tests.support.waiting import until

STEPS = ("borrow", "return", "drop", "invalidate", "detach", "kill", "dispose", "time_out", "session", "roll_back")


@pytest.fixture(scope="module", autouse=True)
def small_collections() -> Iterator[None]:
    """Let the many collections below look only at what this module makes, not at all objects of a long test run."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def shop(postgres: Postgres) -> Iterator[Database]:
    """Return a database for all examples."""
    with fresh_database(postgres, "test_ledger") as database:
        yield database


@pytest.fixture(scope="module")
def server(shop: Database) -> "Iterator[psycopg.Connection[Any]]":
    """Return a connection that sees the sessions of the database without being one of them."""
    with psycopg.connect(shop.server.dsn(), autocommit=True) as connection:
        yield connection


def _sessions(server: "psycopg.Connection[Any]") -> set[int]:
    return {
        pid for (pid,) in server.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'test_ledger'").fetchall()
    }


class Application:
    """Does with an engine what applications do, right or wrong, and knows what it has not returned."""

    def __init__(self, engine: Engine, handle: PoolHandle, server: "psycopg.Connection[Any]") -> None:
        self.engine = engine
        self.handle = handle
        self.server = server
        self.out: list[Connection] = []
        self.detached: list[Connection] = []
        self.collected = self.timed_out = 0

    def borrow(self) -> None:
        """Take a connection, and use it."""
        try:
            connection = self.engine.connect()
        except exc.TimeoutError:
            self.timed_out += 1
            return
        try:
            connection.execute(text("SELECT 1"))
        except exc.DBAPIError:  # it was killed while it was idle
            connection.close()
        else:
            self.out.append(connection)

    time_out = borrow

    def session(self) -> None:
        """Work with a Session as one should."""
        with suppress(exc.TimeoutError, exc.DBAPIError), Session(self.engine) as session:
            session.execute(text("SELECT 1"))
            return
        self.timed_out = self.handle.snapshot().timed_out  # either of the two exceptions

    def roll_back(self) -> None:
        """Return one whose transaction failed."""
        if self.out:
            connection = self.out.pop()
            with suppress(exc.DBAPIError):
                connection.execute(text("SELECT 1/0"))
            connection.close()

    def return_(self) -> None:
        """Close the oldest."""
        if self.out:
            self.out.pop(0).close()

    def drop(self) -> None:
        """Forget one."""
        if self.out:
            del self.out[-1]
            gc.collect()
            self.collected += 1

    def invalidate(self) -> None:
        """Break one, and close it."""
        if self.out:
            connection = self.out.pop()
            connection.invalidate()
            connection.close()

    def detach(self) -> None:
        """Take one out of the pool, or close the one that was."""
        if self.detached:
            self.detached.pop().close()
        elif self.out:
            connection = self.out.pop()
            connection.detach()
            self.detached.append(connection)

    def kill(self) -> None:
        """Terminate one on the server; the application learns of it from its next statement."""
        if self.out:
            connection = self.out.pop()
            pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]  # it is out
            self.server.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            with suppress(exc.DBAPIError):
                connection.execute(text("SELECT 1"))
            connection.close()

    def dispose(self) -> None:
        """Replace the pool. What is out stays out."""
        self.engine.dispose()

    def do(self, step: str) -> None:
        """Do a step."""
        getattr(self, "return_" if step == "return" else step)()

    def check(self) -> None:
        """Compare the ledger with what this application has, and with what the server shows."""
        now = self.handle.snapshot()
        assert (now.used, now.detached_open) == (len(self.out), len(self.detached))
        assert (now.collected, now.timed_out, now.pending) == (self.collected, self.timed_out, 0)
        assert len(self.handle.borrowed()) == len(self.out) + len(self.detached)
        until(lambda: len(_sessions(self.server)) == now.used + now.idle + now.detached_open, within=5)

    def end(self) -> None:
        """Return everything."""
        for connection in (*self.out, *self.detached):
            connection.close()
        uninstrument(self.engine)
        self.engine.dispose()


@contextmanager
def _application(engine: Engine, server: "psycopg.Connection[Any]") -> Iterator[Application]:
    application = Application(engine, instrument(engine), server)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of connections that are dropped on purpose
        try:
            yield application
        finally:
            application.end()
            del engine, application
            gc.collect()
            until(lambda: not _sessions(server))


@given(steps=st.lists(st.sampled_from(STEPS), max_size=25), poolclass=st.sampled_from((QueuePool, NullPool)))
def test_whatever_is_done_with_an_engine_the_ledger_agrees_with_the_server(
    shop: Database, server: "psycopg.Connection[Any]", steps: list[str], poolclass: Any
) -> None:
    """Borrow, return, drop, invalidate, detach, kill, dispose and wait in vain, in any order."""
    url = shop.dsn().replace("postgresql:", "postgresql+psycopg:")
    options = {"pool_size": 1, "max_overflow": 2, "pool_timeout": 0.001} if poolclass is QueuePool else {}
    with _application(create_engine(url, poolclass=poolclass, **options), server) as application:
        for step in steps:
            application.do(step)
            application.check()


PSYCOPG_STEPS = ("borrow", "return", "close", "kill", "drain")


@given(steps=st.lists(st.sampled_from(PSYCOPG_STEPS), max_size=15))
def test_whatever_is_done_with_a_psycopg_pool_the_ledger_agrees_with_the_server(
    shop: Database, server: "psycopg.Connection[Any]", steps: list[str]
) -> None:
    """The pool replaces broken connections in threads of its own, so the server is asked until it agrees."""
    with ConnectionPool(shop.dsn(), min_size=1, max_size=2, num_workers=1, open=True) as pool:
        pool.wait()
        handle = instrument(pool)
        out: list[Any] = []
        for step in steps:
            if step == "borrow":
                with suppress(PoolTimeout):
                    out.append(pool.getconn(timeout=0.3 if len(out) < 2 else 0.001))
            elif step == "drain":
                if hasattr(pool, "drain"):  # since psycopg_pool 3.3
                    pool.drain()
            elif out:
                connection = out.pop(0)
                if step == "close":
                    connection.close()
                elif step == "kill":
                    server.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
                    with suppress(psycopg.Error):  # the client learns of it from its next statement
                        connection.execute("SELECT 1")
                pool.putconn(connection)
            assert handle.snapshot().used == len(out)
            until(lambda: sum(_used_and_idle(handle)) == len(_sessions(server)), within=5)
        for connection in out:
            pool.putconn(connection)
    until(lambda: not _sessions(server))


ASYNC_STEPS = ("borrow", "return", "close", "kill", "cancel_wait", "cancel_query", "wait_in_vain", "expire")


class AsyncApplication:
    """Does with an asyncpg pool what applications do, right or wrong."""

    def __init__(self, pool: Any, server: "psycopg.Connection[Any]") -> None:
        self.pool = pool
        self.server = server
        self.out: list[Any] = []
        self.timed_out = self.cancelled = 0

    async def do(self, step: str) -> None:
        """Do a step."""
        full = len(self.out) == self.pool.get_max_size()
        if step == "borrow" and not full:
            self.out.append(await self.pool.acquire())
        elif step == "cancel_wait" and full:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await self.pool.acquire()
            self.cancelled += 1
        elif step == "wait_in_vain" and full:
            with suppress(TimeoutError):
                await self.pool.acquire(timeout=0.001)
            self.timed_out += 1
        elif step == "expire":
            await self.pool.expire_connections()
        elif self.out and step in {"return", "close", "kill", "cancel_query"}:
            await self._end(step, self.out.pop(0))

    async def _end(self, step: str, connection: Any) -> None:
        if step == "close":  # and forgets to release it
            await connection.close()
            return
        if step == "kill":
            pid = connection.get_server_pid()
            await asyncio.to_thread(self.server.execute, "SELECT pg_terminate_backend(%s, 5000)", [pid])
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await connection.execute("SELECT 1")
            return
        if step == "cancel_query":
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await connection.execute("SELECT pg_sleep(60)")
        await self.pool.release(connection)


@given(steps=st.lists(st.sampled_from(ASYNC_STEPS), max_size=25))
def test_whatever_is_done_with_an_asyncpg_pool_the_ledger_agrees_with_the_server(
    shop: Database, server: "psycopg.Connection[Any]", steps: list[str]
) -> None:
    """Acquire, release, close, kill, cancel a wait or a query, and wait in vain, in any order."""

    async def run() -> None:
        async with asyncpg.create_pool(shop.dsn(), min_size=0, max_size=2) as pool:
            handle = instrument(pool)
            application = AsyncApplication(pool, server)
            for step in steps:
                await application.do(step)
                now = handle.snapshot()
                assert (now.used, now.pending) == (len(application.out), 0)
                assert (now.timed_out, now.cancelled_waits) == (application.timed_out, application.cancelled)
                await asyncio.to_thread(until, lambda: sum(_used_and_idle(handle)) == len(_sessions(server)), within=5)
            for connection in application.out:
                await pool.release(connection)

    asyncio.run(run())
    until(lambda: not _sessions(server))


def _used_and_idle(handle: PoolHandle) -> tuple[int, int]:
    now = handle.snapshot()
    return now.used, now.idle
