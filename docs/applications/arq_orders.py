"""arq and asyncpg: `arq arq_orders.Worker`, with the database in ORDERS_DSN."""

import os
from typing import Any

import asyncpg

from pgwatch_sessions.pools import job, tagged_connection


async def startup(context: dict[str, Any]) -> None:
    """Open the pool."""
    context["pool"] = await asyncpg.create_pool(
        os.environ["ORDERS_DSN"],
        min_size=1,
        connection_class=tagged_connection(application="orders-queue"),
        server_settings={"application_name": "orders-queue"},
    )


async def shutdown(context: dict[str, Any]) -> None:
    """Close the pool."""
    await context["pool"].close()


async def read_order(context: dict[str, Any], order: int) -> int:
    """Read one order."""
    with job("orders.read"):
        async with context["pool"].acquire() as connection:
            found = await connection.fetchval("SELECT cents FROM orders WHERE id = $1", order)
    return int(found or 0)


class Worker:
    """What arq reads."""

    functions = (read_order,)
    on_startup = startup
    on_shutdown = shutdown
