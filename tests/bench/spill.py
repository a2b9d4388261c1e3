"""Temporary files that polls cause on the server, with the work_mem of the held session and with the default."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import asyncpg

from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.demo.postgres import Postgres, running_postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.sql_files import sql
from pgwatch_sessions.postgres.target import Target
from tests.bench.crowd import crowd, prepare
from tests.bench.tables import Limit, limits, table

_SESSIONS, _STATEMENT_LENGTH, _POLLS = 3_000, 2_000, 20


def bench() -> Iterator[str]:
    """Poll many sessions with long statements, on a server with track_activity_query_size above its default (1 kB)."""
    settings = {"max_connections": str(_SESSIONS + 100), "autovacuum": "off", "track_activity_query_size": "4096"}
    with running_postgres(18, settings=settings) as server:
        asyncio.run(prepare(server.dsn()))
        with crowd(server.dsn(), still=_SESSIONS, length=_STATEMENT_LENGTH):
            ours, default = asyncio.run(_compare(server))
    title = f"spill: {_POLLS} polls of {_SESSIONS:,} sessions with statements of {_STATEMENT_LENGTH:,} characters"
    rows = [["as the daemon polls", *ours], ["poll.sql with the default work_mem", *default]]
    yield table(title, ["temporary", "files", "MiB"], rows)
    yield limits(Limit(what="temporary files as the daemon polls", measured=ours[0], bound=0))


async def _compare(server: Postgres) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return the number and MiB of temporary files, for the daemon and for the default."""

    async def as_the_daemon() -> None:
        target = Target(name="bench", dsn=server.dsn())
        held = HeldConnection(target, timeout=30, parse=parse_statement, jitter=lambda _: 0.0)
        for _ in range(_POLLS):
            await held.poll()
        await held.close()

    async def by_default() -> None:
        connection = await asyncpg.connect(server.dsn(), server_settings={"application_name": APPLICATION_NAME})
        for _ in range(_POLLS):
            await connection.fetch(sql("poll"), False, True)
        await connection.close()

    observer = await asyncpg.connect(server.dsn(), server_settings={"work_mem": "64MB"})
    compared = await _measure_spill(observer, as_the_daemon), await _measure_spill(observer, by_default)
    await observer.close()
    return compared


async def _measure_spill(observer: asyncpg.Connection, poll: Callable[[], Awaitable[None]]) -> tuple[int, float]:
    """Return the number and MiB of temporary files that `poll` caused."""
    before = await _temporary_files(observer)
    await poll()
    ours = "SELECT FROM pg_stat_activity WHERE application_name = $1"
    while await observer.fetch(ours, APPLICATION_NAME):
        pass  # a session adds to these statistics when it ends
    files, mebibytes = await _temporary_files(observer)
    return files - before[0], mebibytes - before[1]


async def _temporary_files(observer: asyncpg.Connection) -> tuple[int, float]:
    row = await observer.fetchrow(
        "SELECT sum(temp_files)::int, sum(temp_bytes)::float8 / 1048576 FROM pg_stat_database"
    )
    assert row is not None
    return row[0], row[1]
