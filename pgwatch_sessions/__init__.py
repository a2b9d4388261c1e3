"""Watches PostgreSQL sessions, finds connection leaks, and says who leaks."""

__version__ = "0.1.0"
