"""Fixtures: a database with three small tables, and who watches it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgwatch_sessions.recording import RecordingFile
from tests.support.leaking.watching import Watch
from tests.support.servers import Database


@pytest.fixture
def shop(database: Database) -> Database:
    """Return a database with orders and invoices to read, and stock to take from."""
    with psycopg.connect(database.dsn()) as connection:
        connection.execute("CREATE TABLE orders AS SELECT id, 100 * id AS cents FROM generate_series(1, 10) AS id")
        connection.execute("CREATE TABLE invoices AS SELECT id, false AS paid FROM generate_series(1, 10) AS id")
        connection.execute("CREATE TABLE stock AS SELECT id, 1000 AS pieces FROM generate_series(1, 10) AS id")
    return database


@pytest.fixture
def watch(shop: Database, tmp_path: Path) -> Iterator[Watch]:
    """Return a watch of the shop. Its polls stay in pytest's own folder, for `pgwatch-sessions replay`."""
    with RecordingFile(tmp_path / "polls.jsonl") as recording:
        yield Watch(database=shop, recording=recording)
