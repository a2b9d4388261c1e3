"""For unittest: `python -m unittest unittest_orders`. The first test fails and names the line in orders.py."""

import unittest

import orders

from pgwatch_sessions.pools.testing import assert_no_leaks


class OrdersTest(unittest.TestCase):
    """The same function as for pytest."""

    def test_orders(self) -> None:
        """It leaks."""
        assert_no_leaks(lambda: orders.read_order(0), times=3, concurrency=1)

    def test_orders_fixed(self) -> None:
        """It passes."""
        assert_no_leaks(lambda: orders.read_order_fixed(0), times=50)


class AsyncOrdersTest(unittest.IsolatedAsyncioTestCase):
    """Async functions."""

    async def test_orders(self) -> None:
        """It passes."""

        async def read() -> None:
            orders.read_order_fixed(0)

        await assert_no_leaks(read, times=50)
