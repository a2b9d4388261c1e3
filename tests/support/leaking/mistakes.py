"""The mistakes that leak connections, one function each. `kept` is what keeps the garbage collector away."""

from contextlib import AsyncExitStack, ExitStack, suppress

import asyncpg
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from tests.support.leaking.applications import INVOICE, INVOICE_SQL, NAME, async_engine


async def session_never_closed(engine: AsyncEngine, kept: AsyncExitStack) -> None:
    """Read in a session and forget it."""
    session = AsyncSession(engine)
    kept.push_async_callback(session.invalidate)
    await session.execute(INVOICE, {"id": 1})


def sync_session_never_closed(engine: Engine, kept: ExitStack) -> None:
    """Read in a session and forget it."""
    session = Session(engine)
    kept.callback(session.invalidate)
    session.execute(INVOICE, {"id": 1})


async def failure_not_rolled_back(engine: AsyncEngine, kept: AsyncExitStack) -> None:
    """Catch the error of a statement, and go on without the session."""
    session = AsyncSession(engine)
    kept.push_async_callback(session.invalidate)
    with suppress(DBAPIError):
        await session.execute(text("SELECT 1 / (id - id) FROM invoices"))


async def row_locked(engine: AsyncEngine, kept: AsyncExitStack) -> None:
    """Change a row and forget the session."""
    session = AsyncSession(engine)
    kept.push_async_callback(session.invalidate)
    await session.execute(text("UPDATE stock SET pieces = pieces - 1 WHERE id = 1"))


async def engine_per_request(engine: AsyncEngine, kept: AsyncExitStack) -> None:
    """Make an engine, use it well, and forget it with its pool."""
    own = async_engine(engine.url.render_as_string(hide_password=False), application_name=NAME)
    kept.push_async_callback(own.dispose)
    async with AsyncSession(own) as session:
        await session.execute(INVOICE, {"id": 1})


async def never_released(pool: asyncpg.Pool, kept: AsyncExitStack) -> None:
    """Take a connection out of the pool, and forget to put it back."""
    connection = await pool.acquire()
    kept.push_async_callback(pool.release, connection)
    await connection.fetch(INVOICE_SQL, 1)


async def only_begun(pool: asyncpg.Pool, kept: AsyncExitStack) -> None:
    """Start a transaction, and leave by an error before anything is done in it."""
    connection = await pool.acquire()
    kept.push_async_callback(pool.release, connection)
    await connection.transaction().start()
