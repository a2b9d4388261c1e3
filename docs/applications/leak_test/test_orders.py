"""Ordinary tests. They know nothing of connections: `pytest --connection-leaks=error` does."""

import orders


def test_no_such_order() -> None:
    """It leaks, so it fails at its teardown."""
    assert orders.read_order(0) is None


def test_no_such_order_fixed() -> None:
    """It passes."""
    assert orders.read_order_fixed(0) is None
