"""Workloads without HTTP: jobs, leaders, listeners and consoles. Each runs until it is cancelled."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg


@asynccontextmanager
async def connected(dsn: str, application: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect with an application_name. At the end the connection is dropped, even if it is busy."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": application})
    try:
        yield connection
    finally:
        connection.terminate()


async def sell_stock(dsn: str, application: str, *, piece: int = 10) -> None:
    """Run short transactions on one connection, one after the other. All of them change the same row."""
    async with connected(dsn, application) as connection:
        while True:
            await connection.execute("BEGIN")
            await connection.execute("UPDATE stock SET pieces = pieces - 1 WHERE id = $1", piece)
            await connection.execute("COMMIT")
            await asyncio.sleep(0.05)


async def run_batch(dsn: str, *, pause: float) -> None:
    """Run statements in one endless transaction, with a pause after each."""
    async with connected(dsn, "batch") as connection:
        await connection.execute("BEGIN")
        for order in itertools.count():
            await connection.fetch("SELECT cents FROM orders WHERE id > $1", order)
            await asyncio.sleep(pause)


async def stay_idle(dsn: str, application: str, statement: str) -> None:
    """Run a statement once, and then stay idle."""
    async with connected(dsn, application) as connection:
        await connection.execute(statement)
        await asyncio.Event().wait()
