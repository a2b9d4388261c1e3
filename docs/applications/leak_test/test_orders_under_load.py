"""Many calls at the same time: sync functions in threads, async functions as tasks."""

import os

import orders
import psycopg
import pytest

from pgwatch_sessions.pools.testing import assert_no_leaks


def test_orders_under_load() -> None:
    """A plain function."""
    assert_no_leaks(lambda: orders.read_order_fixed(0), times=200, concurrency=20)


@pytest.mark.anyio
async def test_orders_under_load_async() -> None:
    """An async function; the result is awaited."""

    async def read() -> None:
        async with await psycopg.AsyncConnection.connect(os.environ["DSN"]) as connection:
            await connection.execute("SELECT 1")

    await assert_no_leaks(read, times=50, concurrency=5)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"
