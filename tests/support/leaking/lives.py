"""What else goes on at a server, without HTTP: jobs, leaders, listeners, consoles; each until it is cancelled."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg


@asynccontextmanager
async def connected(dsn: str, application: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect under a name; the connection is dropped at the end, whatever it does then."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": application})
    try:
        yield connection
    finally:
        connection.terminate()


async def selling(dsn: str, application: str, *, piece: int = 10) -> None:
    """Run short transactions on one connection, one after the other, each of which changes the same row."""
    async with connected(dsn, application) as connection:
        while True:
            await connection.execute("BEGIN")
            await connection.execute("UPDATE stock SET pieces = pieces - 1 WHERE id = $1", piece)
            await connection.execute("COMMIT")
            await asyncio.sleep(0.05)


async def batch(dsn: str, *, thinks: float) -> None:
    """Run statement after statement in one transaction that never ends, and think between them."""
    async with connected(dsn, "batch") as connection:
        await connection.execute("BEGIN")
        for order in itertools.count():
            await connection.fetch("SELECT cents FROM orders WHERE id > $1", order)
            await asyncio.sleep(thinks)


async def sitting(dsn: str, application: str, statement: str) -> None:
    """Run statements once, and sit there."""
    async with connected(dsn, application) as connection:
        await connection.execute(statement)
        await asyncio.Event().wait()
