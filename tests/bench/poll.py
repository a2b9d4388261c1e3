"""Cost of a poll for the server and for us, compared with a plain count(*) over the same function and an exporter.

Each round measures all of them in turn, so that other load on the machine affects all alike. A pause precedes each
measurement: in production, seconds pass between two polls, and CPU caches become cold. Without the pause, all seem
cheaper, by a tenth with 1,000 sessions and by a third with 200.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import asyncpg

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.demo.postgres import Postgres, running_postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.sql_files import sql
from pgwatch_sessions.postgres.target import Target
from tests.bench.crowd import crowd, prepare
from tests.bench.exporter import Exporter, exporter
from tests.bench.processes import cpu_ms
from tests.bench.tables import Limit, limits, table

_SIZES = (200, 1_000, 3_000)
_ROUNDS = 40
_WARM_UP = 5
_PAUSE = 0.04
_ROLES = _OUR_ROLE, _EXPORTER_ROLE = "pgwatch_sessions", "postgres_exporter"
_COUNT = "SELECT count(*) FROM pg_stat_get_activity(NULL)"
#: Settings of the held session, so that only the statements differ.
_SETTINGS = {"work_mem": "32MB", "jit": "off", "search_path": "pg_catalog", "application_name": "bench"}


class Cost(NamedTuple):
    """The cost of one measurement, in milliseconds."""

    #: CPU of the server's processes.
    server: float
    #: CPU of the client process.
    own: float
    wall: float


class Subject(NamedTuple):
    """A subject of measurement."""

    #: Runs it once.
    act: Callable[[], Awaitable[object]]
    #: Pids of the server's processes.
    backends: Sequence[int]
    #: Returns the CPU time of the client process so far, in milliseconds.
    own_ms: Callable[[], float]


def bench() -> Iterator[str]:
    """Measure with a growing number of sessions on one server."""
    costs: dict[int, dict[str, Cost]] = {}
    settings = {"max_connections": str(_SIZES[-1] + 100), "autovacuum": "off"}
    with running_postgres(18, settings=settings) as server, contextlib.ExitStack() as stack:
        asyncio.run(prepare(server.dsn(), *_ROLES))
        compared = stack.enter_context(exporter(server.dsn(user=_EXPORTER_ROLE, sslmode="disable")))
        if compared is None:
            yield "no comparison: postgres_exporter is not installed (Debian: prometheus-postgres-exporter)\n"
        there = 0
        for size in _SIZES:
            stack.enter_context(crowd(server.dsn(), still=size - there))
            there = size
            costs[size] = asyncio.run(_costs(server, compared))
        yield _cost_table(costs)
        yield limits(*_limits(costs))


async def _costs(server: Postgres, compared: Exporter | None) -> dict[str, Cost]:
    """Return the median cost of each subject."""
    async with _subjects(server, compared) as subjects:
        rounds: dict[str, list[Cost]] = {name: [] for name in subjects}
        for turn in range(_WARM_UP + _ROUNDS):
            for name, subject in subjects.items():
                await asyncio.sleep(_PAUSE)
                cost = await _measure(subject)
                if turn >= _WARM_UP:
                    rounds[name].append(cost)
    return {name: Cost(*map(median, zip(*costs, strict=True))) for name, costs in rounds.items()}


async def _measure(subject: Subject) -> Cost:
    server, own, wall = cpu_ms(*subject.backends), subject.own_ms(), time.perf_counter()
    await subject.act()
    wall, own = time.perf_counter() - wall, subject.own_ms() - own
    return Cost(server=cpu_ms(*subject.backends) - server, own=own, wall=wall * 1000)


@contextlib.asynccontextmanager
async def _subjects(server: Postgres, compared: Exporter | None) -> AsyncIterator[Mapping[str, Subject]]:
    """Yield the subjects, connected and with their statements prepared, as in a running daemon."""
    reference = await asyncpg.connect(server.dsn(user=_OUR_ROLE), statement_cache_size=0, server_settings=_SETTINGS)
    backend = [reference.get_server_pid()]
    count, statement = await reference.prepare(_COUNT), await reference.prepare(sql("poll"))
    subjects = {
        "count": Subject(count.fetch, backend, _own_ms),
        "statement": Subject(functools.partial(statement.fetch, False, True), backend, _own_ms),
        "limits": Subject(functools.partial(statement.fetch, True, True), backend, _own_ms),
    }
    held = _held(server)
    await held.poll()
    polling = await _backends(reference, "application_name", APPLICATION_NAME)
    daemon = _Daemon(held)
    subjects["poll"] = Subject(daemon.poll, polling, _own_ms)
    subjects["advance"] = Subject(daemon.advance, [], _own_ms)
    if compared:
        exporting = await _backends(reference, "usename", _EXPORTER_ROLE)
        subjects["exporter"] = Subject(_scrape_function(compared), exporting, functools.partial(cpu_ms, compared.pid))
    yield subjects
    await held.close()
    await reference.close()


def _held(server: Postgres) -> HeldConnection:
    target = Target(name="bench", dsn=server.dsn(user=_OUR_ROLE))
    return HeldConnection(target, timeout=30, parse=parse_statement, jitter=lambda _: 0.0)


def _scrape_function(compared: Exporter) -> Callable[[], Awaitable[object]]:
    async def scrape() -> bytes:
        return compared.scrape()  # blocking is fine, because nothing else runs in this loop

    return scrape


class _Daemon:
    """Polls, and advances the core with the outcome, as the daemon does."""

    def __init__(self, held: HeldConnection) -> None:
        self._held = held
        self._state = ServerState(server="bench")
        self._outcome: Snapshot | Failure | None = None

    async def poll(self) -> None:
        self._outcome = await self._held.poll()

    async def advance(self) -> None:
        assert isinstance(self._outcome, Snapshot), self._outcome
        self._state, _ = advance(self._state, self._outcome, policy=Policy(), at=time.time(), duration=0.0)


def _own_ms() -> float:
    return time.process_time() * 1000


async def _backends(connection: asyncpg.Connection, column: str, value: str) -> list[int]:
    found = await connection.fetch(f"SELECT pid FROM pg_stat_activity WHERE {column} = $1", value)
    return [row["pid"] for row in found]


def _cost_table(costs: Mapping[int, Mapping[str, Cost]]) -> str:
    def row(title: str, value: Callable[[Mapping[str, Cost]], float], needs: str = "poll") -> list[object]:
        return [title, *(value(of) if needs in of else None for of in costs.values())]

    return table(
        f"poll: medians of {_ROUNDS} rounds, ms",
        ["sessions", *(f"{size:,}" for size in costs)],
        [
            row("server CPU: plain count(*)", lambda of: of["count"].server),
            row("server CPU: poll.sql", lambda of: of["statement"].server),
            row("server CPU: poll.sql with the limits", lambda of: of["limits"].server),
            row("server CPU: the whole poll", lambda of: of["poll"].server),
            row("server CPU: a postgres_exporter scrape", lambda of: of["exporter"].server, "exporter"),
            row("own CPU: fetching poll.sql", lambda of: of["statement"].own),
            row("own CPU: the whole poll", lambda of: of["poll"].own),
            row("own CPU: advance", lambda of: of["advance"].own),
            row("own CPU: a postgres_exporter scrape", lambda of: of["exporter"].own, "exporter"),
            row("wall: the whole poll", lambda of: of["poll"].wall),
            row("wall: a postgres_exporter scrape", lambda of: of["exporter"].wall, "exporter"),
            row("ratio: poll.sql / count(*)", lambda of: of["statement"].server / of["count"].server),
            row("ratio: postgres_exporter / poll", _exporter_over_poll, "exporter"),
        ],
    )


def _exporter_over_poll(of: Mapping[str, Cost]) -> float:
    return of["exporter"].server / of["poll"].server


def _limits(costs: Mapping[int, Mapping[str, Cost]]) -> Iterator[Limit]:
    few, many = costs[200], costs[1_000]
    ratio = many["statement"].server / many["count"].server
    yield Limit(what="1,000 sessions: server CPU of poll.sql / count(*)", measured=ratio, bound=2.3)
    if "exporter" in many:
        what = "server CPU of postgres_exporter / poll"
        yield Limit(what=f"1,000 sessions: {what}", measured=_exporter_over_poll(many), bound=2.5, least=True)
        yield Limit(what=f"200 sessions: {what}", measured=_exporter_over_poll(few), bound=7, least=True)
    yield Limit(
        what="1,000 sessions: our own CPU, poll and advance",
        measured=many["poll"].own + many["advance"].own,
        bound=10,
        unit=" ms",
    )
