"""The claim on the size of a pool, and the rule that replaces it."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import asyncpg
import psycopg
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pgwatch_sessions.pools.sizing import size_for
from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.laboratory import Laboratory, Watched, watched_database

#: Requests per second, seconds for which each has a connection, and for how long they come.
_RATE, _HOLD, _SECONDS = 100, 0.25, 5.0
_TIMEOUT_SECONDS = 0.5
#: Four workers with three connections each, and a buffer of eight; the overflow is that of the same write-up.
_WORKERS, _FORMULA, _OVERFLOW = 4, 20, 10
_LIMIT = 97
#: Requests at once, of all workers together, and the seconds for which each has a connection.
_BURST, _BURST_HOLD = 120, 2.0
_ROLE = "claim_pool_size"
_PATIENCE_SECONDS = 30.0


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What came of the requests."""

    answers: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    def row(self, run: str, size: str) -> tuple[object, ...]:
        """Return the row of the table."""
        names = ("answered", "timed out", "refused")
        p95 = sorted(self.waits)[int(0.95 * len(self.waits))]
        return run, size, *(self.answers[name] for name in names), f"{1000 * p95:.0f}"


def _pool_size(laboratory: Laboratory) -> Outcome:
    rule = size_for(_RATE, _HOLD, 1, _LIMIT)
    shared = size_for(_BURST / _BURST_HOLD, _BURST_HOLD, _WORKERS, _LIMIT)
    with watched_database(laboratory, "pool-size") as watched:
        little = asyncio.run(_steady(watched, "formula", _FORMULA))
        enough = asyncio.run(_steady(watched, "rule", rule.size))
        with psycopg.connect(watched.dsn("claims"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {_ROLE} LOGIN CONNECTION LIMIT {_LIMIT}")
            many = asyncio.run(_burst(watched, "formula, 4 processes", _FORMULA, _OVERFLOW))
            fitting = asyncio.run(_burst(watched, "rule, 4 processes", shared.size, 0))
            connection.execute(f"DROP ROLE {_ROLE}")
    return Outcome(
        header=("run", "pool", "answered", "timed out", "refused by the server", "wait p95, ms"),
        rows=[
            little.row("load, one process, formula", str(_FORMULA)),
            enough.row("load, one process, rule", str(rule.size)),
            many.row("burst, four processes, formula", f"4 * ({_FORMULA} + {_OVERFLOW})"),
            fitting.row("burst, four processes, rule", f"4 * {shared.size}"),
        ],
        said={
            run: watched.replayed.said(run) for run in ("formula", "rule", "formula, 4 processes", "rule, 4 processes")
        },
        verdict=verdict_of(little.answers["timed out"] < 0.01 * little.answers.total(), many.answers["refused"] == 0),
        reason=(
            f"The formula knows neither the load nor the limit. {_RATE} requests per second that hold a connection for "
            f"{_HOLD:g} s keep {rule.busy:g} connections in use on average, so 20 are too few: "
            f"{little.answers['timed out']} requests timed out. A pool belongs to a process, so four processes open up "
            f"to 120 connections, and the server refused {many.answers['refused']}. The rule is rate * hold for each "
            "process, and twice the square root of that as headroom, times processes, under the limit "
            "(`pgwatch_sessions.pools.sizing.size_for`): "
            f"{rule.size} for the load, with {enough.answers['timed out']} time-outs, and {shared.size} in each of "
            f"four processes, with {fitting.answers['refused']} refusals. The daemon may call the pool of {rule.size} "
            "too small as well, because the server does not show how many more connections a pool may open. If "
            "requests arrive independently, a pool that may open more soon does: their number at a time scatters by "
            "its square root. Here they come evenly, so hardly more than the average are ever open, and nearly all of "
            "those are busy."
        ),
    )


async def _steady(watched: Watched, run: str, size: int) -> _Tally:
    """Send requests at a steady rate, whether or not the earlier ones are answered."""
    engine, tally = _engine(watched.dsn(run), size, 0, _TIMEOUT_SECONDS), _Tally()
    begun = time.monotonic()
    async with asyncio.TaskGroup() as requests:
        for number in range(int(_RATE * _SECONDS)):
            await asyncio.sleep(begun + number / _RATE - time.monotonic())
            requests.create_task(_request(engine, _HOLD, tally))
    await engine.dispose()
    return tally


async def _burst(watched: Watched, run: str, size: int, overflow: int) -> _Tally:
    """Send 30 requests at once to each of four pools, as four processes have them."""
    dsn, tally = watched.dsn(run, user=_ROLE), _Tally()
    engines = [_engine(dsn, size, overflow, _PATIENCE_SECONDS) for _ in range(_WORKERS)]
    await asyncio.gather(
        *(_request(engine, _BURST_HOLD, tally) for engine in engines for _ in range(_BURST // _WORKERS))
    )
    for engine in engines:
        await engine.dispose()
    return tally


def _engine(dsn: str, size: int, overflow: int, timeout: float) -> AsyncEngine:
    url = make_url(dsn).set(drivername="postgresql+asyncpg")
    name = url.query["application_name"]
    return create_async_engine(
        url.set(query={}),
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=timeout,
        connect_args={"server_settings": {"application_name": name}},
    )


async def _request(engine: AsyncEngine, hold: float, tally: _Tally) -> None:
    begun = time.monotonic()
    try:
        async with engine.connect() as connection:
            tally.waits.append(time.monotonic() - begun)
            await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": hold})
    except PoolTimeoutError:
        tally.answers["timed out"] += 1
    except (DBAPIError, asyncpg.TooManyConnectionsError):
        tally.answers["refused"] += 1
    else:
        tally.answers["answered"] += 1


CLAIMS = (
    Claim(
        name="pool-size",
        text=(
            "A write-up on FastAPI leaks claims that a pool's size is workers * connections of a worker + buffer: for "
            "4 workers with 3 connections and a buffer of 8 it is 20, with an overflow of 10."
        ),
        experiment=(
            f"For {_SECONDS:g} s, {_RATE} requests per second hold a connection for {_HOLD:g} s each and wait at most "
            f"{_TIMEOUT_SECONDS:g} s for it, with a pool by the formula and with one by the rate and the hold. Then "
            f"four pools, as four processes have them, get 30 requests each at once; their role may have {_LIMIT} "
            "connections, as on a server with `max_connections = 100`."
        ),
        attempt=_pool_size,
    ),
)
