"""What advice relies on, on a real server: the statement that terminates a session, and how drivers are recognised."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import psycopg
import pytest
from sqlalchemy import Integer, bindparam, make_url, select
from sqlalchemy.ext.asyncio import create_async_engine

from pgwatch_sessions.core.model import SessionId
from pgwatch_sessions.wording.stacks.recognition import recognise
from pgwatch_sessions.wording.termination import termination_sql
from tests.support.polling import held, poll, seen
from tests.support.servers import Database
from tests.support.situations import role
from tests.support.states import after
from tests.support.values import session
from tests.support.waiting import until


def identity_of(console: psycopg.Connection, pid: int) -> SessionId:
    """Return what identifies the session with this pid."""
    query = b"SELECT extract(epoch FROM backend_start)::float8 FROM pg_stat_activity WHERE pid = %s"
    row = console.execute(query, [pid]).fetchone()
    return SessionId(pid, row[0] if row else None)


def statement_for(*identities: SessionId) -> bytes:
    """Return the statement that terminates these sessions."""
    statement = termination_sql([replace(session(), id=identity) for identity in identities])
    assert statement is not None
    return statement.encode()


def test_the_statement_terminates_its_sessions_and_no_other(any_database: Database) -> None:
    """A start that differs by a microsecond, as that of a later session with the same pid does, matches nothing."""
    dsn = any_database.dsn()
    with (
        psycopg.connect(dsn, autocommit=True) as console,
        contextlib.closing(psycopg.connect(dsn)) as first,
        contextlib.closing(psycopg.connect(dsn)) as second,
        contextlib.closing(psycopg.connect(dsn)) as spared,
    ):
        pids = [connection.info.backend_pid for connection in (first, second, spared)]
        one, two, other = (identity_of(console, pid) for pid in pids)
        assert other.backend_start
        later, earlier = (SessionId(other.pid, other.backend_start + by) for by in (1e-6, -1e-6))
        rows = console.execute(statement_for(later, one, two, earlier)).fetchall()
        assert sorted(rows) == sorted([(one.pid, True), (two.pid, True)])
        until(
            lambda: identity_of(console, one.pid).backend_start is identity_of(console, two.pid).backend_start is None
        )
        assert identity_of(console, other.pid) == other


def test_a_finding_names_the_last_write_that_polls_saw(any_database: Database) -> None:
    """The session reads once more and stays in its transaction. It shows the read, and the xid of the write."""
    dsn = any_database.dsn(application_name="orders")
    with psycopg.connect(dsn) as console:
        console.execute("CREATE TABLE stock AS SELECT 1 AS n")
    with contextlib.closing(psycopg.connect(dsn)) as lost:
        lost.execute("UPDATE stock SET n = 2")
        during = seen(poll(any_database.dsn()))
        lost.execute("SELECT 'read' FROM pg_class LIMIT 1")
        later = seen(poll(any_database.dsn()))
    (finding,) = after(during, replace(later, taken_at=later.taken_at + 61)).findings
    assert (finding.site, finding.sessions[0].statement.site) == ("UPDATE stock", "SELECT pg_class")
    (without,) = after(replace(later, taken_at=later.taken_at + 61)).findings
    assert without.site == "SELECT pg_class"


def test_the_statement_needs_the_role_of_the_sessions_or_pg_signal_backend(any_database: Database) -> None:
    """Another role is refused, and its statement terminates nothing."""
    roles = {
        "session_owner": (),
        "signaller": ("pg_monitor", "pg_signal_backend"),
        "monitor": ("pg_monitor",),
    }
    with contextlib.ExitStack() as stack:
        for name, groups in roles.items():
            stack.enter_context(role(any_database.dsn(), name, member_of=groups))
        superuser = stack.enter_context(psycopg.connect(any_database.dsn(), autocommit=True))
        for name in roles:
            with (
                contextlib.closing(psycopg.connect(any_database.dsn(user="session_owner"))) as leaked,
                psycopg.connect(any_database.dsn(user=name), autocommit=True) as console,
            ):
                statement = statement_for(identity_of(superuser, leaked.info.backend_pid))
                if name == "monitor":
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        console.execute(statement)
                else:
                    assert console.execute(statement).fetchall() == [(leaked.info.backend_pid, True)]


async def stacks_on(database: Database) -> list[str]:
    """Poll the server, and recognise the stacks of the sessions in this database, the most specific first."""
    async with held(database.dsn()) as connection:
        snapshot = seen(await connection.poll())
    own = [session for session in snapshot.sessions if session.client.database == database.name]
    return [stack.name for stack in recognise(own).stacks]


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
        found = await stacks_on(database)
    assert found == ["asyncpg"]


async def test_asyncpg_is_recognised_by_a_nested_transaction(database: Database) -> None:
    """It gives savepoints names of its own."""
    async with connected(database) as connection:
        await connection.transaction().start()
        await connection.transaction().start()
        assert await stacks_on(database) == ["asyncpg"]


async def test_asyncpgs_pool_is_recognised_by_its_reset(database: Database) -> None:
    """A connection that was released has run the reset last, which asyncpg's bare connections do not."""
    async with asyncpg.create_pool(database.dsn(), min_size=1, max_size=1) as pool:
        await pool.fetch("SELECT 1")
        assert await stacks_on(database) == ["asyncpg's pool"]
        async with pool.acquire() as connection:
            await connection.fetch("SELECT now()")
            assert await stacks_on(database) == []


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_sqlalchemy_is_recognised_by_its_casts(database: Database, driver: str) -> None:
    """It writes the type of a parameter in capitals with every driver."""
    engine = create_async_engine(make_url(database.dsn()).set(drivername=f"postgresql+{driver}"))
    try:
        async with engine.connect() as connection:
            await connection.execute(select(bindparam("id", 7, Integer)))
            found = await stacks_on(database)
    finally:
        await engine.dispose()
    assert found == ["SQLAlchemy"]


async def test_psycopg_is_recognised_by_its_rollback(database: Database) -> None:
    """It drops its prepared statements after a rollback."""
    with contextlib.closing(psycopg.connect(database.dsn(), prepare_threshold=0)) as connection:
        connection.execute("SELECT %s::int", [1])
        connection.rollback()
        assert await stacks_on(database) == ["psycopg"]
