"""Runs each sample of docs/applications/ against a server, and looks at what the server shows meanwhile."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.pools.tagging.shown import Shown, shown
from tests.support.servers import Database
from tests.support.waiting import until

FOLDER = Path(__file__).parents[3] / "docs" / "applications"

#: Reading an order takes a lock, so that a test can hold the reader.
ORDERS = """
CREATE FUNCTION cents() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN 123; END';
CREATE VIEW orders AS SELECT 7 AS id, cents() AS cents;
"""


class Sample(NamedTuple):
    """A sample, the program that reads order 7 with it and prints the cents, and what the server is to show."""

    module: str
    program: str
    driver: str
    application: str
    site: str
    #: A text in the line that borrows, and the function of that line.
    line: str
    function: str


SAMPLES = (
    Sample(
        "fastapi_orders",
        "import asyncio, httpx, fastapi_orders as sample\n"
        "async def get():\n"
        "    transport = httpx.ASGITransport(app=sample.app)\n"
        "    async with httpx.AsyncClient(transport=transport, base_url='http://test') as client:\n"
        "        print((await client.get('/orders/7')).text)\n"
        "    await sample.engine.dispose()\n"
        "asyncio.run(get())",
        "postgresql+asyncpg",
        "orders",
        "/orders/{order}",
        "await session.scalar(",
        "read_order",
    ),
    Sample(
        "asyncpg_orders",
        "import asyncio, os, asyncpg_orders as sample\nprint(asyncio.run(sample.main(os.environ['ORDERS_DSN'])))",
        "postgresql",
        "orders",
        "/orders/{order}",
        "async with pool.acquire()",
        "read_order",
    ),
    Sample(
        "flask_orders",
        "import flask_orders as sample\nprint(sample.app.test_client().get('/orders/7').text)",
        "postgresql+psycopg",
        "orders",
        "/orders/{order}",
        "with engine.connect()",
        "read_order",
    ),
    Sample(
        "django_orders",
        "import django, django_orders as sample\ndjango.setup()\nfrom django.test import Client\n"
        "print(Client().get('/orders/7/').content.decode())",
        "postgresql",
        "orders",
        "/orders/{order}/",
        "cursor.execute(",
        "read_order",
    ),
    Sample(
        "celery_orders",
        "import celery_orders as sample\nprint(sample.read_order.apply((7,)).get())",
        "postgresql+psycopg",
        "orders-worker",
        "orders.read",
        "with engine.connect()",
        "read_order",
    ),
    Sample(
        "apscheduler_orders",
        "import apscheduler_orders as sample\n"
        "from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED\n"
        "from datetime import datetime\n"
        "scheduler = sample.scheduler\n"
        "def ended(event):\n"
        "    print(event.exception or event.retval, flush=True)\n"
        "    scheduler.shutdown(wait=False)\n"
        "scheduler.add_listener(ended, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)\n"
        "scheduler.get_job('orders.read').modify(next_run_time=datetime.now().astimezone())\n"
        "scheduler.start()",
        "postgresql+psycopg",
        "orders-scheduler",
        "orders.read",
        "with job(",
        "read_order",
    ),
    Sample(  # called as arq's worker calls it, which would need Redis
        "arq_orders",
        "import asyncio, arq_orders as sample\n"
        "async def work():\n"
        "    context = {}\n"
        "    await sample.Worker.on_startup(context)\n"
        "    (read_order,) = sample.Worker.functions\n"
        "    print(await asyncio.create_task(read_order({**context, 'job_id': 'a1'}, 7)))\n"
        "    await sample.Worker.on_shutdown(context)\n"
        "asyncio.run(work())",
        "postgresql",
        "orders-queue",
        "orders.read",
        "async with context",
        "read_order",
    ),
)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.module)
def test_the_server_shows_what_a_sample_tags(database: Database, sample: Sample, tmp_path: Path) -> None:
    """The application, the route or job, and the line of the sample that borrowed the connection."""
    output = tmp_path / "output"
    with running(sample, database, output):
        (session,) = until(lambda: waiting(database, output), within=30)
        text = (FOLDER / f"{sample.module}.py").read_text(encoding="utf-8")
        line = text[: text.index(sample.line)].count("\n") + 1
        assert session.application_name == session.application == sample.application
        assert session.statement.site == sample.site
        assert str(session.statement.code_line) == f"{sample.module}.py:{line} in {sample.function}"
    assert output.read_text(encoding="utf-8").strip() == "123"


def waiting(database: Database, output: Path) -> list[Shown]:
    """Return the session that waits for the lock, if it does already. Fail if the program has said something."""
    assert output.read_text(encoding="utf-8") == ""
    return [each for each in shown(database) if "FROM orders WHERE id" in each.text]


@contextmanager
def running(sample: Sample, database: Database, output: Path) -> Iterator[None]:
    """Run a sample's program, and hold it while it reads the order; let it go on and end afterwards."""
    where = conninfo_to_dict(database.dsn())
    environment = {
        **os.environ,
        "ORDERS_DSN": database.dsn().replace("postgresql", sample.driver, 1),
        "PGDATABASE": str(where["dbname"]),
        "PGUSER": str(where["user"]),
        "PGHOST": str(where["host"]),
        "PGPORT": str(where["port"]),
    }
    with psycopg.connect(database.dsn(), autocommit=True) as holder, output.open("w") as stdout:
        holder.execute(ORDERS)
        holder.execute("SELECT pg_advisory_lock(1)")
        process = subprocess.Popen(
            [sys.executable, "-c", sample.program], cwd=FOLDER, env=environment, stdout=stdout, stderr=stdout
        )
        try:
            yield
            holder.execute("SELECT pg_advisory_unlock(1)")
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            process.wait()
