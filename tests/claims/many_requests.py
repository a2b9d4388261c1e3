"""The claim on a test with a thousand requests, and a fixture that counts connections."""

import asyncio
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import NamedTuple

import asyncpg
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from pgwatch_sessions.demo.orders import MeasuredQueuePool
from tests.bench.processes import result_of
from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.laboratory import Laboratory, watched_database
from tests.claims.services.engines import ORDER, measured_engine

_REQUESTS, _FEW = 1000, 10
_SIZE, _OVERFLOW = 5, 10
#: SQLAlchemy's default is 30 s; each time-out stops the event loop for so long.
_POOL_TIMEOUT_SECONDS = 0.002


class _Counted(NamedTuple):
    """What one run left."""

    run: str
    requests: int
    #: The most connections that requests had at the same time, where it was measured.
    most: int | str
    #: How many more connections are out than before: of the engine that the fixture made, and of the service's own.
    seen: int
    left: int
    timeouts: int


def _thousand(laboratory: Laboratory) -> Outcome:
    with watched_database(laboratory, "thousand-requests") as watched:
        runs: list[_Counted] = []
        for target in (_closed, _kept, _kept_elsewhere, _local, _asynchronous):
            name = target.__name__.strip("_")
            laboratory.report(f"  {name}")
            runs.append(result_of(target, watched.dsn(name)))
    closed, kept, elsewhere, local, asynchronous = runs
    hours = kept.timeouts * 30 / 3600
    return Outcome(
        header=("run", "requests", "most at the same time", "the fixture sees", "really left", "pool time-outs"),
        rows=[(run.run, run.requests, run.most, run.seen, run.left, run.timeouts) for run in runs],
        verdict=verdict_of(kept.seen > 0, elsewhere.seen > 0, closed.seen == 0 and asynchronous.seen == 0),
        reason=(
            f"The count sees a leak only on the very engine that the fixture made: it saw {elsewhere.seen} of "
            f"{elsewhere.left} on an engine of the service's own. With more requests than connections the test fails, "
            f"but by a pool time-out, and each stops the event loop: {kept.timeouts} of them with the default of 30 s "
            f"take {hours:.0f} hours. Handlers that use a synchronous session do not run at the same time: at most "
            f"{closed.most} had a connection. Of sessions in local variables the collector had left {local.left}, so "
            f"that count depends on chance. With asynchronous handlers, {asynchronous.most} were at work at a time and "
            f"{asynchronous.left} were left."
        ),
    )


def _closed(parent: Connection, dsn: str) -> None:
    """Close every session."""
    engine = _engine(dsn)
    most = [0]

    async def handler() -> None:
        with Session(engine) as session:
            session.scalars(ORDER, {"id": 1}).one()
            most.append(_out(engine))

    parent.send(_run("sessions closed", handler, engine, engine, lambda: max(most)))


def _kept(parent: Connection, dsn: str) -> None:
    """Leak on the engine of the fixture."""
    engine = _engine(dsn)
    parent.send(_run("leak on the fixture's engine", _leaking(engine, []), engine, engine, lambda: _out(engine)))


def _kept_elsewhere(parent: Connection, dsn: str) -> None:
    """Leak on the engine of the service, while the fixture makes another; few enough for its pool."""
    fixture, engine = _engine(dsn), _engine(dsn)
    handler = _leaking(engine, [])
    parent.send(_run("leak on the service's engine", handler, fixture, engine, lambda: _out(engine), requests=_FEW))


def _local(parent: Connection, dsn: str) -> None:
    """Leak sessions that nothing refers to, on the engine of the fixture."""
    engine = _engine(dsn)
    parent.send(_run("leak in local variables, same engine", _leaking(engine, None), engine, engine, lambda: "-"))


def _asynchronous(parent: Connection, dsn: str) -> None:
    """Use an asyncpg pool as intended."""

    async def count() -> _Counted:
        async with asyncpg.create_pool(dsn, min_size=0, max_size=_SIZE + _OVERFLOW) as pool:
            out, most = 0, 0

            async def handler() -> None:
                nonlocal out, most
                async with pool.acquire() as connection:
                    out += 1
                    most = max(most, out)
                    await connection.fetchval("SELECT total FROM orders WHERE id = 1")
                    out -= 1

            await asyncio.gather(*(handler() for _ in range(_REQUESTS)))
            return _Counted("asyncpg, asynchronous", _REQUESTS, most, out, out, 0)

    parent.send(asyncio.run(count()))


def _engine(dsn: str) -> Engine:
    return measured_engine(dsn, size=_SIZE, overflow=_OVERFLOW, timeout=_POOL_TIMEOUT_SECONDS)


def _leaking(engine: Engine, kept: list[Session] | None) -> Callable[[], Coroutine[None, None, None]]:
    async def handler() -> None:
        session = Session(engine)
        if kept is not None:
            kept.append(session)
        session.scalars(ORDER, {"id": 1}).one()

    return handler


def _out(engine: Engine) -> int:
    assert isinstance(engine.pool, MeasuredQueuePool)
    return engine.pool.checkedout()


def _run(
    name: str,
    handler: Callable[[], Coroutine[None, None, None]],
    fixture: Engine,
    engine: Engine,
    most: Callable[[], int | str],
    *,
    requests: int = _REQUESTS,
) -> _Counted:
    """Gather all requests, as the test of the write-up does, and count as its fixture does."""

    async def all_at_once() -> None:
        errors = await asyncio.gather(*(handler() for _ in range(requests)), return_exceptions=True)
        assert all(error is None or isinstance(error, PoolTimeoutError) for error in errors)

    before = _out(fixture)
    asyncio.run(all_at_once())
    assert isinstance(engine.pool, MeasuredQueuePool)
    return _Counted(name, requests, most(), _out(fixture) - before, _out(engine), engine.pool.timeouts)


CLAIMS = (
    Claim(
        name="thousand-requests",
        text=(
            "A write-up on FastAPI leaks claims that a test which gathers 1,000 concurrent requests, and a fixture "
            "that compares `engine.pool.checkedout()` before and after, find a leak."
        ),
        experiment=(
            f"Handlers that close their session, leak it on the fixture's engine, leak it on an engine of their own, "
            f"or use asyncpg are gathered {_REQUESTS} times, each in a process of its own with a pool of "
            f"{_SIZE} + {_OVERFLOW}. Only here, the pool gives up after 2 ms."
        ),
        attempt=_thousand,
    ),
)
