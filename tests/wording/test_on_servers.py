"""What advice relies on, on a real server: the statement that terminates a session, and how drivers are recognised."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest
from sqlalchemy import Integer, bindparam, make_url, select
from sqlalchemy.ext.asyncio import create_async_engine

from pgwatch_sessions.core.model import SessionId
from pgwatch_sessions.wording.advice import termination_statement
from pgwatch_sessions.wording.client_software import ClientSoftware, recognise_software
from tests.support.polling import held, seen
from tests.support.servers import Database
from tests.support.waiting import until


def test_the_statement_terminates_its_session_and_no_other(database: Database) -> None:
    """A start that differs by a microsecond, as that of a later session with the same pid does, matches nothing."""
    dsn = database.dsn()
    with psycopg.connect(dsn, autocommit=True) as console:

        def terminated(identity: SessionId) -> int:
            statement = termination_statement(identity)
            assert statement is not None
            return len(console.execute(statement.encode()).fetchall())

        def start_of(pid: int) -> float | None:
            query = b"SELECT extract(epoch FROM backend_start)::float8 FROM pg_stat_activity WHERE pid = %s"
            row = console.execute(query, [pid]).fetchone()
            return row[0] if row else None

        with contextlib.closing(psycopg.connect(dsn)) as connection:
            connection.execute("SELECT 1")
            pid = connection.info.backend_pid
            start = start_of(pid)
            assert start is not None
            assert terminated(SessionId(pid, start + 1e-6)) == terminated(SessionId(pid, start - 1e-6)) == 0
            assert start_of(pid) == start
            assert terminated(SessionId(pid, start)) == 1
            until(lambda: start_of(pid) is None)


async def software_on(database: Database) -> ClientSoftware:
    """Poll the server, and recognise the software of the sessions in this database."""
    async with held(database.dsn()) as connection:
        snapshot = seen(await connection.poll())
    return recognise_software(session for session in snapshot.sessions if session.client.database == database.name)


@contextlib.asynccontextmanager
async def connected(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Yield a bare connection of asyncpg."""
    connection = await asyncpg.connect(database.dsn())
    try:
        yield connection
    finally:
        connection.terminate()


async def test_asyncpg_is_recognised_by_a_transaction_that_was_only_started(database: Database) -> None:
    """It sends `BEGIN;` with a semicolon."""
    async with connected(database) as connection:
        await connection.transaction().start()
        software = await software_on(database)
    assert (software.asyncpg, software.asyncpg_pool, software.sqlalchemy) == (True, False, False)


async def test_asyncpg_is_recognised_by_a_nested_transaction(database: Database) -> None:
    """It gives savepoints names of its own."""
    async with connected(database) as connection:
        await connection.transaction().start()
        await connection.transaction().start()
        assert (await software_on(database)).asyncpg


async def test_asyncpgs_pool_is_recognised_by_its_reset(database: Database) -> None:
    """A connection that was released has run the reset last, which asyncpg's bare connections do not."""
    async with asyncpg.create_pool(database.dsn(), min_size=1, max_size=1) as pool:
        await pool.fetch("SELECT 1")
        assert (await software_on(database)).asyncpg_pool
        async with pool.acquire() as connection:
            await connection.fetch("SELECT now()")
            assert await software_on(database) == ClientSoftware(
                asyncpg=False, asyncpg_pool=False, sqlalchemy=False, tagged=frozenset()
            )


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_sqlalchemy_is_recognised_by_its_casts(database: Database, driver: str) -> None:
    """It writes the type of a parameter in capitals with every driver."""
    engine = create_async_engine(make_url(database.dsn()).set(drivername=f"postgresql+{driver}"))
    try:
        async with engine.connect() as connection:
            await connection.execute(select(bindparam("id", 7, Integer)))
            software = await software_on(database)
    finally:
        await engine.dispose()
    assert (software.sqlalchemy, software.asyncpg_pool) == (True, False)
