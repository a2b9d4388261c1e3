"""A pool of asyncpg."""

import asyncpg

from pgwatch_sessions.pools import tagged_connection, tags


async def read_order(pool: asyncpg.Pool, order: int) -> int:
    """Read one order."""
    with tags(route="/orders/{order}"):  # or TagMiddleware, in an ASGI application
        async with pool.acquire() as connection:
            found = await connection.fetchval("SELECT cents FROM orders WHERE id = $1", order)
            return int(found or 0)


async def main(dsn: str) -> int:
    """Open the pool and read."""
    async with asyncpg.create_pool(
        dsn,
        connection_class=tagged_connection(application="orders"),
        server_settings={"application_name": "orders"},
    ) as pool:
        return await read_order(pool, 7)
