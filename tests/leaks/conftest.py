"""Fixtures: a database with three small tables, and a monitor that polls it."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgwatch_sessions.recording import RecordingFile
from tests.support.leaking.monitoring import Monitor
from tests.support.servers import Database


@pytest.fixture
def shop(database: Database) -> Database:
    """Return a database with the tables orders, invoices and stock."""
    with psycopg.connect(database.dsn()) as connection:
        connection.execute("CREATE TABLE orders AS SELECT id, 100 * id AS cents FROM generate_series(1, 10) AS id")
        connection.execute("CREATE TABLE invoices AS SELECT id, false AS paid FROM generate_series(1, 10) AS id")
        connection.execute("CREATE TABLE stock AS SELECT id, 1000 AS pieces FROM generate_series(1, 10) AS id")
    return database


@pytest.fixture
def monitor(shop: Database, tmp_path: Path) -> Iterator[Monitor]:
    """Return a monitor of the shop. Its recording stays in pytest's folder, for `pgwatch-sessions replay`."""
    with RecordingFile(tmp_path / "polls.jsonl") as recording:
        yield Monitor(database=shop, recording=recording)
