"""Keep many real sessions open on a server, from a separate process."""

import asyncio
import contextlib
import itertools
import resource
from collections.abc import Iterator
from multiprocessing.connection import Connection

import asyncpg

from tests.bench.processes import child

#: One in ten of the sessions that do not move is idle in transaction.
_HOLDING = 10
_APPLICATIONS = 10
_CONNECTING_AT_ONCE = 32
#: Transactions after which a moving session is replaced by a new one.
_TRANSACTIONS_PER_SESSION = 50

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS customers (id int PRIMARY KEY, name text, email text);
    CREATE TABLE IF NOT EXISTS orders (
        id int PRIMARY KEY, customer_id int, state text, placed_at timestamptz, total numeric
    );
    GRANT SELECT ON customers, orders TO PUBLIC;
"""
_STATEMENT = (
    "SELECT o.id, o.placed_at, o.total, c.name, c.email FROM orders AS o JOIN customers AS c ON c.id = o.customer_id "
    "WHERE o.customer_id = {customer} AND o.state <> 'cancelled' AND o.placed_at > now() - interval '30 days' "
    "ORDER BY o.placed_at DESC LIMIT {limit}"
)


async def prepare(dsn: str, *monitors: str) -> None:
    """Create the tables for the sessions, and monitoring roles."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(_SCHEMA)
    for role in monitors:
        await connection.execute(f"CREATE ROLE {role} LOGIN IN ROLE pg_monitor")
    await connection.close()


@contextlib.contextmanager
def crowd(dsn: str, *, still: int, moving: int = 0, length: int = 0) -> Iterator[None]:
    """Keep `still` sessions open that ran one statement, and `moving` sessions that run short transactions.

    Statements have about 250 characters, or `length` if that is more.
    """
    with child(_hold, dsn, still, moving, length) as connection:
        connection.recv()
        yield


def _hold(parent: Connection, dsn: str, still: int, moving: int, length: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_open(parent, dsn, still, moving, length))


async def _open(parent: Connection, dsn: str, still: int, moving: int, length: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(parent.fileno(), ended.set)
    gate = asyncio.Semaphore(_CONNECTING_AT_ONCE)
    held = await asyncio.gather(*(_stay(dsn, number, length, gate) for number in range(still)))
    movers = [asyncio.create_task(_move(dsn, number)) for number in range(moving)]
    parent.send("ready")
    await asyncio.wait([asyncio.create_task(ended.wait()), *movers], return_when=asyncio.FIRST_COMPLETED)
    for mover in movers:
        mover.cancel()
    await asyncio.gather(*movers, return_exceptions=ended.is_set())
    for connection in held:
        connection.terminate()


async def _stay(dsn: str, number: int, length: int, gate: asyncio.Semaphore) -> asyncpg.Connection:
    async with gate:
        connection = await _connect(dsn, number)
        if number % _HOLDING == 0:
            await connection.execute("BEGIN")
        statement = _STATEMENT.format(customer="$1", limit=20 + number % 20)
        await connection.fetch(statement.ljust(length), number)
    return connection


async def _move(dsn: str, number: int) -> None:
    """Run short transactions with pauses, each with another literal in its statement."""
    customers = itertools.count(number * 1_000_000)
    while True:
        connection = await _connect(dsn, number)
        try:
            for _ in range(_TRANSACTIONS_PER_SESSION):
                async with connection.transaction():
                    await connection.execute(_STATEMENT.format(customer=next(customers), limit=20))
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.05)
        finally:
            connection.terminate()


async def _connect(dsn: str, number: int) -> asyncpg.Connection:
    application = f"orders-{number % _APPLICATIONS}"
    return await asyncpg.connect(dsn, timeout=60, server_settings={"application_name": application})
