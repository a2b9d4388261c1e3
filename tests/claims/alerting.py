"""Claims on what a monitor of pg_stat_activity shows: an alert on active sessions, and a gauge for each state."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from prometheus_client import CollectorRegistry, Gauge

from tests.claims.claim import Claim, Outcome, verdict_of
from tests.claims.laboratory import Laboratory, Watched, watched_database

_THRESHOLD = 80
_LEAKED, _BUSY = 90, 85
_SECONDS = 4.0
_STATES = "SELECT state, count(*) FROM pg_stat_activity WHERE application_name = 'service' GROUP BY state"


def _active_alert(laboratory: Laboratory) -> Outcome:
    with watched_database(laboratory, "active-alert") as watched:
        leaked = asyncio.run(_while_open(watched, "leak", _LEAKED, _leak))
        busy = asyncio.run(_while_open(watched, "busy", _BUSY, _work))
    most = {run: watched.replayed.most(run, "active") for run in ("leak", "busy")}
    return Outcome(
        header=("run", "sessions", "idle in transaction", "most that were active", f"active > {_THRESHOLD}"),
        rows=[
            (
                f"{_LEAKED} leaked sessions",
                sum(leaked.values()),
                leaked.get("idle in transaction", 0),
                most["leak"],
                "yes" if most["leak"] > _THRESHOLD else "no",
            ),
            (
                f"{_BUSY} sessions at work, no leak",
                sum(busy.values()),
                busy.get("idle in transaction", 0),
                most["busy"],
                "yes" if most["busy"] > _THRESHOLD else "no",
            ),
        ],
        said={run: watched.replayed.said(run) for run in ("leak", "busy")},
        verdict=verdict_of(most["leak"] > _THRESHOLD, most["busy"] <= _THRESHOLD),
        reason=(
            f"A leaked session is idle in transaction, or idle. Active is one that runs a statement. Of {_LEAKED} "
            f"leaked sessions at most {most['leak']} were active in a poll, so the alert finds no leak, and it fires "
            f"on a service that is only busy ({most['busy']} active)."
        ),
    )


async def _while_open(
    watched: Watched, run: str, number: int, use: Callable[[asyncpg.Connection], Awaitable[object]]
) -> Mapping[str, int]:
    """Open connections, use them in a transaction each, and return their states while they are used."""
    connections = [await asyncpg.connect(watched.dsn(run)) for _ in range(number)]
    try:
        for connection in connections:
            await connection.execute("BEGIN")
        using = asyncio.gather(*(use(connection) for connection in connections))
        await asyncio.sleep(_SECONDS / 2)
        states = watched.states(run)
        await using
        await asyncio.sleep(_SECONDS / 2)
    finally:
        for connection in connections:
            connection.terminate()
    return states


async def _leak(connection: asyncpg.Connection) -> None:
    await connection.fetchval("SELECT total FROM orders WHERE id = 1")


async def _work(connection: asyncpg.Connection) -> None:
    await connection.fetchval("SELECT pg_sleep($1)", _SECONDS)
    await connection.execute("COMMIT")


def _state_gauge(laboratory: Laboratory) -> Outcome:
    with watched_database(laboratory, "state-gauge") as watched:
        shown, really, hangs = asyncio.run(_gauge_of(watched.dsn("service")))
    return Outcome(
        header=("moment", "the gauge shows idle in transaction", "really"),
        rows=[
            ("three sessions are held", shown[0], really[0]),
            ("they have ended", shown[1], really[1]),
            ("the pool is used up", "no answer within 1 s" if hangs else "an answer", "-"),
        ],
        verdict=verdict_of(shown == really, not hangs),
        reason=(
            "A query that groups by state returns no row for a state without sessions, so its label keeps the last "
            f"value: {shown[1]:.0f} instead of {really[1]}. And a monitor that takes a connection from the pool which "
            "it watches waits, as everybody does, when the pool is used up."
        ),
    )


async def _gauge_of(dsn: str) -> tuple[list[float], list[int], bool]:
    """Return what the gauge shows and what is true, twice, and whether the monitor hangs on a pool that is used up."""
    registry = CollectorRegistry()
    gauge = Gauge("db_connections_active", "Active database connections", ["state"], registry=registry)
    shown, really = [], []

    async def look(connection: PoolConnectionProxy) -> None:
        rows = await connection.fetch(_STATES)
        for row in rows:
            gauge.labels(state=row["state"]).set(row["count"])
        shown.append(registry.get_sample_value("db_connections_active", {"state": "idle in transaction"}) or 0.0)
        really.append(sum(row["count"] for row in rows if row["state"] == "idle in transaction"))

    async with asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool:
        held = [await pool.acquire() for _ in range(3)]
        for connection in held:
            await connection.execute("BEGIN")
        async with pool.acquire() as monitor:
            await look(monitor)
        for connection in held:
            await connection.execute("COMMIT")
        async with pool.acquire() as monitor:
            await look(monitor)
        last = await pool.acquire()
        try:
            async with pool.acquire(timeout=1.0):
                hangs = False
        except TimeoutError:
            hangs = True
        for connection in (*held, last):
            await pool.release(connection)
    return shown, really, hangs


CLAIMS = (
    Claim(
        name="active-alert",
        text=(
            "A write-up on FastAPI leaks claims that leaked connections stay in the state active, so that an alert on "
            f"more than {_THRESHOLD} active sessions finds a leak."
        ),
        experiment=(
            f"{_LEAKED} sessions read in a transaction and are then forgotten. Then {_BUSY} sessions run a query of "
            f"{_SECONDS:g} s and commit."
        ),
        attempt=_active_alert,
    ),
    Claim(
        name="state-gauge",
        text=(
            "The same write-up claims that a gauge with a label for each state, set from the rows of a query that runs "
            "over the service's own pool, shows the connections of each state."
        ),
        experiment=(
            "The gauge is set while three sessions are idle in transaction and after they have committed. Then the "
            "pool is used up, and the monitor gets 1 s."
        ),
        attempt=_state_gauge,
    ),
)
