"""The sample service as a process, with a database and a role of its own."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from pgwatch_sessions.demo.child_process import ChildProcess, child_process, temporary_folder
from pgwatch_sessions.demo.postgres import Postgres, last_lines

DATABASE = "shop"
ROLE = "orders"
_POOL_SIZE = 4
_MAX_OVERFLOW = 8
#: The limit of the role is the size of the pool.
CONNECTIONS = _POOL_SIZE + _MAX_OVERFLOW
POOL_TIMEOUT_SECONDS = 1.0
_START_SECONDS = 20.0
#: Short, because requests that wait for a connection would delay the end, and get none.
_STOP_SECONDS = 0.5


class ServiceUnavailableError(Exception):
    """The service did not start; the message is the end of its log."""


async def create_database(server: Postgres) -> None:
    """Create the service's role and database."""
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT {CONNECTIONS}")
        await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def running_service(server: Postgres, *, is_fixed: bool, port: int = 0) -> AsyncIterator[str]:
    """Run the service, with the mistake or with the fix, until the block ends; yield its address once it listens.

    Port 0 is any free one.
    """
    environment = {
        **os.environ,
        "ORDERS_DSN": server.dsn(database=DATABASE, user=ROLE),
        "ORDERS_POOL_SIZE": str(_POOL_SIZE),
        "ORDERS_MAX_OVERFLOW": str(_MAX_OVERFLOW),
        "ORDERS_POOL_TIMEOUT": str(POOL_TIMEOUT_SECONDS),
        "ORDERS_FIXED": str(int(is_fixed)),
    }
    command = (sys.executable, "-m", "pgwatch_sessions.demo.service", f"--port={port}")
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(temporary_folder())
        log = folder.path / "service.log"
        process = stack.enter_context(
            child_process(command, folder=folder, env=environment, log=log, patience=_STOP_SECONDS)
        )
        yield await _address(process, log)
    finally:
        await asyncio.to_thread(stack.close)  # it waits for the process to end; the daemon keeps polling meanwhile


async def _address(process: ChildProcess, log: Path) -> str:
    """Return the service's address, which is the first line of its log."""
    deadline = time.monotonic() + _START_SECONDS
    while not (address := _first_line(log)).startswith("http"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServiceUnavailableError(f"the sample service did not start: {last_lines(log)}")
        await asyncio.sleep(0.02)
    return address


def _first_line(log: Path) -> str:
    return log.read_text().partition("\n")[0]
