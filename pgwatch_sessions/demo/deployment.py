"""The sample service as a process of its own, on a database and with a role of its own."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from pgwatch_sessions.demo.kept import Kept, kept, temporary_folder
from pgwatch_sessions.demo.postgres import Postgres, last_lines

DATABASE = "shop"
ROLE = "orders"
#: As many connections as the pool opens at most, and no more: the role's limit is the pool's.
_POOL_SIZE = 4
_MAX_OVERFLOW = 8
CONNECTIONS = _POOL_SIZE + _MAX_OVERFLOW
POOL_TIMEOUT_SECONDS = 1.0
_START_SECONDS = 20.0
#: Requests that wait for a connection would hold up its end, and they will get none.
_STOP_SECONDS = 0.5


class ServiceUnavailableError(Exception):
    """The service did not start; the message is the end of its log."""


async def create_database(server: Postgres) -> None:
    """Make what the service is to use."""
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT {CONNECTIONS}")
        await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def deployed(server: Postgres, *, fixed: bool) -> AsyncIterator[str]:
    """Run the service, with the mistake or with the fix, while inside; yield its address once it listens."""
    environment = {
        **os.environ,
        "ORDERS_DSN": server.dsn(database=DATABASE, user=ROLE),
        "ORDERS_POOL_SIZE": str(_POOL_SIZE),
        "ORDERS_MAX_OVERFLOW": str(_MAX_OVERFLOW),
        "ORDERS_POOL_TIMEOUT": str(POOL_TIMEOUT_SECONDS),
        "ORDERS_FIXED": str(int(fixed)),
    }
    command = (sys.executable, "-m", "pgwatch_sessions.demo.service")
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(temporary_folder())
        log = folder.path / "service.log"
        process = stack.enter_context(kept(command, folder=folder, env=environment, log=log, patience=_STOP_SECONDS))
        yield await _address(process, log)
    finally:
        await asyncio.to_thread(stack.close)  # which waits for the end; the daemon goes on polling


async def _address(process: Kept, log: Path) -> str:
    """Return what the service writes first."""
    deadline = time.monotonic() + _START_SECONDS
    while not (address := _written(log)).startswith("http"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceUnavailableError(f"the sample service did not start: {last_lines(log)}")
        await asyncio.sleep(0.02)
    return address


def _written(log: Path) -> str:
    return log.read_text().partition("\n")[0]
