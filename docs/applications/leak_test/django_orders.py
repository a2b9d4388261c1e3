"""For Django's test runner. The test of the report fails and names the line in django_shop.py."""

from django.test import TestCase

from pgwatch_sessions.pools.testing import assert_no_leaks


class OrdersTest(TestCase):
    """`concurrency=1` calls in the test's own thread, where Django has the test's transaction."""

    def test_orders(self) -> None:
        """It passes: the connection that Django keeps for the thread is not left out."""
        assert_no_leaks(lambda: self.client.get("/orders"), times=50, concurrency=1)

    def test_report(self) -> None:
        """It leaks."""
        assert_no_leaks(lambda: self.client.get("/report"), times=3, concurrency=1)
