import asyncio
import logging

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy

from pgwatch_sessions.pools import tagged_connection, tags
from tests.pools.tagging.shown import line_of, shown
from tests.support.servers import Database

SELECT = "SELECT count(*) FROM pg_class WHERE relname = $1"


async def query(connection: asyncpg.Connection | PoolConnectionProxy) -> None:
    """Query in another function than the one that borrows."""
    assert await connection.fetchval(SELECT, "pg_class") == 1


async def borrow(pool: asyncpg.Pool, *, within: float | None = None) -> PoolConnectionProxy:
    """Take a connection in a function of its own."""
    return await pool.acquire(timeout=within)


async def test_the_server_shows_who_borrowed(database: Database) -> None:
    """The line is that of `acquire`, and the next borrower has its own."""
    async with asyncpg.create_pool(
        database.dsn(),
        min_size=1,
        max_size=1,
        connection_class=tagged_connection(application="orders"),
        server_settings={"application_name": "orders"},
    ) as pool:
        with tags(route="/orders/{id}"):
            connection = await borrow(pool)
            await query(connection)
        (session,) = shown(database)
        assert session.statement.site == "/orders/{id}"
        here = line_of(borrow, "pool.acquire")
        assert str(session.statement.code_line) == f"tests/pools/tagging/test_asyncpg_connections.py:{here} in borrow"
        await pool.release(connection)
        assert "/*" not in shown(database)[0].text, "the reset has no tag"
        async with pool.acquire() as connection:
            await query(connection)
            line = shown(database)[0].statement.code_line
            assert line is not None
            assert line.line == line_of(test_the_server_shows_who_borrowed, "async with pool.acquire()")


async def test_every_way_to_execute_is_tagged(database: Database) -> None:
    """Those of a plain connection too. BEGIN and COMMIT have no tag."""
    connection = await asyncpg.connect(database.dsn(), connection_class=tagged_connection(application="orders"))
    await connection.execute("CREATE TABLE numbers (n int)")
    assert shown(database)[0].application == "orders"
    await connection.executemany("INSERT INTO numbers VALUES ($1)", [(1,), (2,)])
    assert shown(database)[0].application == "orders"
    for method in (connection.fetch, connection.fetchrow, connection.fetchval):
        await method("SELECT n FROM numbers")
        assert shown(database)[0].application == "orders"
    async with connection.transaction():
        assert shown(database)[0].text == "BEGIN;"
        assert [row["n"] async for row in connection.cursor("SELECT n FROM numbers")] == [1, 2]
        assert shown(database)[0].application == "orders"
        async with connection.transaction():
            assert shown(database)[0].application == "orders"
    assert shown(database)[0].text == "COMMIT;"
    statement = await connection.prepare("SELECT n FROM numbers WHERE n = $1")
    assert await statement.fetchval(1) == 1
    assert shown(database)[0].application == "orders"
    await connection.close()


async def test_a_borrow_with_a_deadline_has_a_line_too(database: Database) -> None:
    """The pool may acquire in a task of its own then, which has no caller; the first query has one."""
    connection_class = tagged_connection(application="orders")
    async with asyncpg.create_pool(database.dsn(), min_size=1, max_size=1, connection_class=connection_class) as pool:
        connection = await borrow(pool, within=5)
        await query(connection)
        line = shown(database)[0].statement.code_line
        assert line is not None
        assert line.file == "tests/pools/tagging/test_asyncpg_connections.py"
        assert line.function in {"borrow", "query"}
        await pool.release(connection)


async def test_a_cancelled_borrow_changes_nothing(database: Database) -> None:
    """The pool stays usable."""
    connection_class = tagged_connection(application="orders")
    async with asyncpg.create_pool(database.dsn(), min_size=1, max_size=1, connection_class=connection_class) as pool:
        async with pool.acquire() as connection:
            waiting = asyncio.create_task(borrow(pool))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await query(connection)
        async with pool.acquire() as connection:
            await query(connection)


async def test_more_texts_than_the_driver_keeps_prepared_are_told_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the number and the setting that cures it."""
    connection = await asyncpg.connect(
        database.dsn(), connection_class=tagged_connection(application="many"), statement_cache_size=5
    )
    with caplog.at_level(logging.WARNING):
        for number in range(9):
            with tags(route=f"/{number}"):
                await query(connection)
    await connection.close()
    (record,) = caplog.records
    assert "statement_cache_size=25" in record.getMessage()


async def test_switched_off_by_the_environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements are as they were."""
    monkeypatch.setenv("PGWATCH_SESSIONS_TAGS", "off")
    connection = await asyncpg.connect(database.dsn(), connection_class=tagged_connection(application="off"))
    await query(connection)
    assert shown(database)[0].text == SELECT
    await connection.close()
