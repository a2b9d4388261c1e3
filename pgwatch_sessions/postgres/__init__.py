"""Polls one PostgreSQL server over one held connection, and makes a Snapshot of its rows."""
