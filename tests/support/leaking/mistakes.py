"""Mistakes that leak connections, one function each. `leaked` protects them from the garbage collector."""

from contextlib import AsyncExitStack, ExitStack, suppress

import asyncpg
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from tests.support.leaking.applications import INVOICE, INVOICE_SQL, NAME, async_engine


async def session_never_closed(engine: AsyncEngine, leaked: AsyncExitStack) -> None:
    """Read in a session, and do not close it."""
    session = AsyncSession(engine)
    leaked.push_async_callback(session.invalidate)
    await session.execute(INVOICE, {"id": 1})


def sync_session_never_closed(engine: Engine, leaked: ExitStack) -> None:
    """Read in a session, and do not close it."""
    session = Session(engine)
    leaked.callback(session.invalidate)
    session.execute(INVOICE, {"id": 1})


async def failure_not_rolled_back(engine: AsyncEngine, leaked: AsyncExitStack) -> None:
    """Catch the error of a statement, and neither roll back nor close the session."""
    session = AsyncSession(engine)
    leaked.push_async_callback(session.invalidate)
    with suppress(DBAPIError):
        await session.execute(text("SELECT 1 / (id - id) FROM invoices"))


async def row_locked(engine: AsyncEngine, leaked: AsyncExitStack) -> None:
    """Change a row, and do not close the session."""
    session = AsyncSession(engine)
    leaked.push_async_callback(session.invalidate)
    await session.execute(text("UPDATE stock SET pieces = pieces - 1 WHERE id = 1"))


async def engine_per_request(engine: AsyncEngine, leaked: AsyncExitStack) -> None:
    """Create an engine, use it correctly, but do not dispose of it and its pool."""
    own = async_engine(engine.url.render_as_string(hide_password=False), application_name=NAME)
    leaked.push_async_callback(own.dispose)
    async with AsyncSession(own) as session:
        await session.execute(INVOICE, {"id": 1})


async def never_released(pool: asyncpg.Pool, leaked: AsyncExitStack) -> None:
    """Take a connection from the pool, and do not release it."""
    connection = await pool.acquire()
    leaked.push_async_callback(pool.release, connection)
    await connection.fetch(INVOICE_SQL, 1)


async def only_begun(pool: asyncpg.Pool, leaked: AsyncExitStack) -> None:
    """Start a transaction, and neither use nor end it."""
    connection = await pool.acquire()
    leaked.push_async_callback(pool.release, connection)
    await connection.transaction().start()
