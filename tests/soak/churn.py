"""Clients that come, go, leak and change their names, in a process of their own."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Coroutine, Iterator
from multiprocessing.connection import Connection

import asyncpg

from tests.bench.processes import child

#: Sessions that stay, and that run a short statement now and then.
_STAYING = 20
#: Clients at a time that come and go. In two minutes they bring more statements than the daemon remembers.
_PASSING = 10
#: Their names. The daemon remembers 5,000, which would take longer to come than the soak lasts.
_NAMES = 400
#: Names of sessions that stay or leak, and of some that pass.
_APPLICATIONS = ("orders-api", "billing", "reports", "mail")


@contextlib.contextmanager
def churn(dsn: str) -> Iterator[None]:
    """Let clients come and go until the block ends."""
    with child(_work, dsn) as connection:
        connection.recv()
        yield


def _work(parent: Connection, dsn: str) -> None:
    asyncio.run(_run(parent, dsn))


async def _run(parent: Connection, dsn: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(parent.fileno(), ended.set)
    numbers = itertools.count()
    endless: list[Coroutine[object, object, None]] = [
        *(_stay(dsn, number) for number in range(_STAYING)),
        *(_come_and_go(dsn, numbers) for _ in range(_PASSING)),
        *(_leak(dsn, numbers) for _ in range(4)),
    ]
    tasks = [asyncio.create_task(each) for each in endless]
    parent.send("ready")
    await asyncio.wait([asyncio.create_task(ended.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=ended.is_set())


async def _stay(dsn: str, number: int) -> None:
    """Use one session for ever, as a pool does."""
    async with _connected(dsn, _APPLICATIONS[number % len(_APPLICATIONS)]) as connection:
        while True:
            await connection.execute(f"SELECT {random.randrange(1000)} FROM pg_class LIMIT 1")
            await asyncio.sleep(random.uniform(0.1, 1))


async def _come_and_go(dsn: str, numbers: "itertools.count[int]") -> None:
    """Connect, ask what nobody has asked before, and leave; mostly under a name of long ago."""
    while True:
        number = next(numbers)
        name = f"job-{number % _NAMES}" if number % 4 else random.choice(_APPLICATIONS)
        async with _connected(dsn, name) as connection:
            for statement in range(random.randrange(1, 8)):
                await connection.execute(f"SELECT {number}, {statement} /*route='/jobs/{number % 500}/run'*/")
                await asyncio.sleep(random.uniform(0, 0.1))
        await asyncio.sleep(random.uniform(0, 0.1))


async def _leak(dsn: str, numbers: "itertools.count[int]") -> None:
    """Leave a transaction open for longer than is allowed, and then end."""
    while True:
        async with _connected(dsn, random.choice(_APPLICATIONS)) as connection:
            await connection.execute("BEGIN")
            await connection.fetch(f"SELECT $1::int /*route='/orders/{next(numbers) % 300}'*/", 1)
            await asyncio.sleep(random.uniform(0.1, 6))
        await asyncio.sleep(random.uniform(0, 2))


@contextlib.asynccontextmanager
async def _connected(dsn: str, application: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, timeout=30, server_settings={"application_name": application})
    try:
        yield connection
    finally:
        connection.terminate()
