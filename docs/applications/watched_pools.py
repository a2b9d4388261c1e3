"""asyncpg and psycopg_pool: who has a connection now."""

import asyncio
import os
import sys

import asyncpg
from psycopg_pool import AsyncConnectionPool

from pgwatch_sessions.pools import instrument


async def main() -> None:
    """Borrow a connection of each pool, and print who has them."""
    dsn = os.environ["DATABASE_URL"]
    async with asyncpg.create_pool(dsn, min_size=1) as orders, AsyncConnectionPool(dsn, min_size=1) as stock:
        handles = [instrument(orders, name="orders"), instrument(stock, name="stock")]
        async with orders.acquire(), stock.connection():
            for handle in handles:
                for borrowed in handle.borrowed():
                    sys.stdout.write(f"{borrowed.pool} {borrowed.site}\n")


asyncio.run(main())
