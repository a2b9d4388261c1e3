"""Leak tests for the test suite of an application: the pytest plugin, and `assert_no_leaks`."""

from pgwatch_sessions.pools.testing.load import assert_no_leaks

__all__ = ["assert_no_leaks"]
