"""The samples of the documentation about pools, run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.servers import Database

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).parents[2] / "docs" / "applications"

_REQUESTS = """
import asyncio, sys
import httpx
sys.path.insert(0, sys.argv[1])
import watched_orders

async def main():
    transport = httpx.ASGITransport(watched_orders.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://orders", follow_redirects=True) as client:
        print((await client.get("/orders")).text)
        print((await client.get("/metrics")).text)
        print((await client.get("/debug/pools/")).text)

asyncio.run(main())
"""


def _run(database: Database, url: str, *arguments: object) -> str:
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int)")
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "DATABASE_URL": url},
        cwd=SAMPLES,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_application_shows_its_pool(database: Database) -> None:
    """The metrics and the JSON document of one application."""
    url = database.dsn().replace("postgresql:", "postgresql+psycopg:")
    printed = _run(database, url, "-c", _REQUESTS, SAMPLES)
    pool = 'db_client_connection_pool_name="orders"'
    assert printed.startswith("0\n")
    assert f'db_client_connection_count{{{pool},db_client_connection_state="idle"}} 1.0\n' in printed
    assert f"db_client_connection_use_time_seconds_count{{{pool}}} 1.0\n" in printed
    assert '"name": "orders", "kind": "sqlalchemy QueuePool", "used": 0, "idle": 1' in printed


def test_the_borrowers_of_two_pools_are_printed(database: Database) -> None:
    """Each with the line of `async with`."""
    printed = _run(database, database.dsn(), SAMPLES / "watched_pools.py")
    assert printed.splitlines() == [
        "orders watched_pools.py:18 in main",
        "stock watched_pools.py:18 in main",
    ]
