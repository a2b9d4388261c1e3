from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

from pgwatch_sessions.core.model import Failure, LimitScope, Session, SessionState, Snapshot
from pgwatch_sessions.core.statements import StatementKind
from tests.scenarios.backends import Origin
from tests.scenarios.chance import about, exactly, steady, then_silence
from tests.scenarios.engine import Process
from tests.scenarios.pools import (
    Pool,
    PoolTimedOut,
    RunningPool,
    asyncpg_pool,
    autocommit,
    node_postgres,
    per_request,
    pgx,
    sqlalchemy,
)
from tests.scenarios.requests import LIST_ORDERS, PAY_ORDER, READ_ORDER, Keeps, Request, leaking
from tests.scenarios.scripts import Begin, Run, Script, migration, report, row_holder
from tests.scenarios.server import Postgres
from tests.scenarios.services import Service
from tests.scenarios.story import Part, Story, begin, polls
from tests.scenarios.world import World

HERE = Origin("shop", "app", "orders", "10.0.0.1")


def story(*parts: Part, minutes: float = 10, **fields: object) -> Story:
    """Return a story with these parts."""
    return Story(name="test", family="test", parts=parts, minutes=minutes, **fields)  # type: ignore[arg-type]  # fields of Story


def snapshots(played_story: Story) -> list[Snapshot]:
    """Play a story, and return the snapshots of all polls that succeed."""
    outcomes = [poll.outcome for poll in polls(played_story, begin(played_story))]
    return [outcome for outcome in outcomes if isinstance(outcome, Snapshot)]


def last_sessions(played_story: Story) -> tuple[Session, ...]:
    """Return the sessions of the last poll."""
    return snapshots(played_story)[-1].sessions


def new_pool(pool: Pool) -> tuple[World, RunningPool]:
    """Return a pool on an otherwise empty server, after its first connections are open."""
    world = World(1, Postgres())
    running = RunningPool(world.simulation, world.server, replace(pool, connecting=exactly(0.01)), HERE)
    world.simulation.run_until(1.0)
    return world, running


def use(world: World, pool: RunningPool, seconds: float, used: list[int]) -> Process[None]:
    """Take a connection, record its pid, and return the connection later."""
    backend = yield from pool.acquire()
    used.append(backend.pid)
    yield from world.server.run(backend, "SELECT 1 FROM t", seconds)
    pool.release(backend)


def use_in_turn(world: World, pool: RunningPool, times: int) -> list[int]:
    """Use the pool several times, one after the other. Return the pids."""
    used: list[int] = []
    for _ in range(times):
        world.simulation.start(use(world, pool, 0.1, used))
        world.simulation.run_until(world.simulation.now + 1)
    return used


def use_at_once(world: World, pool: RunningPool, number: int, seconds: float = 0.5) -> list[int]:
    """Use several connections at the same time. Return the pids."""
    used: list[int] = []
    for _ in range(number):
        world.simulation.start(use(world, pool, seconds, used))
    world.simulation.run_until(world.simulation.now + 2 * seconds + 1)
    return used


def test_queue_pool_is_first_in_first_out() -> None:
    """It uses its connections in turn, so that none looks old."""
    world, pool = new_pool(sqlalchemy(4, 0))
    opened = use_at_once(world, pool, 4)
    assert use_in_turn(world, pool, 8) == opened * 2


def test_asyncpg_pool_is_last_in_first_out() -> None:
    """Sequential requests use one connection. The others are never used, even if the pool is busy."""
    world, pool = new_pool(asyncpg_pool(4, 8))
    assert len(set(use_in_turn(world, pool, 8))) == 1
    assert len(world.server.backends) == 4


def test_a_pool_opens_no_connection_while_one_is_idle() -> None:
    """Work that needs at most three connections never has more than three."""
    world, pool = new_pool(sqlalchemy(10, 10))
    for _ in range(5):
        use_at_once(world, pool, 3)
    assert (pool.opened, pool.idle, len(world.server.backends)) == (3, 3, 3)


def test_overflow_connections_are_closed_when_they_are_returned() -> None:
    """Only `size` connections are kept."""
    world, pool = new_pool(sqlalchemy(2, 3))
    assert len(set(use_at_once(world, pool, 5))) == 5
    assert len(world.server.backends) == 2


def test_requests_wait_for_an_exhausted_pool_until_they_time_out() -> None:
    """A waiting request gets a returned connection. After the time-out, it fails."""
    world, pool = new_pool(sqlalchemy(1, 0, timeout=3))
    assert len(use_at_once(world, pool, 3, seconds=0.5)) == 3
    with pytest.raises(PoolTimedOut):
        use_at_once(world, pool, 3, seconds=4)
    assert pool.timed_out == 1
    assert len(world.server.backends) == 1


@pytest.mark.parametrize("pool", [sqlalchemy(5, 5), asyncpg_pool(3, 8), pgx(7), autocommit(4, 2), node_postgres(9)])
def test_a_pool_never_has_more_than_its_limit(pool: Pool) -> None:
    """The number of sessions reaches the limit but never exceeds it."""
    service = Service(pool=replace(pool, timeout=2), instances=((0, 1),), traffic=steady(60))
    busy = replace(service, requests=(Request(sql="SELECT x FROM t", takes=about(0.3)),))
    assert max(len(snapshot.sessions) for snapshot in snapshots(story(busy, minutes=3))) == pool.most


def test_without_a_pool_no_session_stays_open() -> None:
    """After the traffic ended, there is no session."""
    assert last_sessions(story(Service(pool=per_request(), traffic=then_silence(20, at=60)), minutes=3)) == ()


def session_after(keeps: Keeps | None, request: Request, pool: Pool) -> Session:
    """Return the session after a request, leaking or not."""
    changed = leaking(request, per_minute=2, keeps=keeps) if keeps else replace(request, per_minute=2)
    left, *_ = last_sessions(
        story(Service(pool=pool, requests=(changed,), traffic=steady(0), instances=((0, 1),)), minutes=2)
    )
    return left


ASYNC = sqlalchemy(5, 0, driver="asyncpg")
IN_TRANSACTION, IDLE = SessionState.IDLE_IN_TRANSACTION, SessionState.IDLE


@pytest.mark.parametrize(
    ("left", "state", "text", "xact", "xid", "xmin"),
    [
        ((Keeps.TRANSACTION, READ_ORDER, ASYNC), IN_TRANSACTION, READ_ORDER.sql, True, False, True),
        ((Keeps.TRANSACTION, READ_ORDER, sqlalchemy(5, 0)), IN_TRANSACTION, READ_ORDER.sql, True, False, False),
        ((Keeps.TRANSACTION, PAY_ORDER, ASYNC), IN_TRANSACTION, PAY_ORDER.sql, True, True, True),
        ((Keeps.ABORTED, READ_ORDER, ASYNC), SessionState.ABORTED, READ_ORDER.sql, False, False, False),
        ((Keeps.BEGUN, READ_ORDER, asyncpg_pool(0, 5)), IN_TRANSACTION, "BEGIN;", True, False, False),
        ((None, READ_ORDER, ASYNC), IDLE, "ROLLBACK;", False, False, False),
        ((None, READ_ORDER, sqlalchemy(5, 0)), IDLE, "ROLLBACK", False, False, False),
        ((None, PAY_ORDER, ASYNC), IDLE, "COMMIT;", False, False, False),
        ((Keeps.CONNECTION, READ_ORDER, asyncpg_pool(0, 5)), IDLE, READ_ORDER.sql, False, False, False),
        ((Keeps.CONNECTION, READ_ORDER, per_request()), IDLE, READ_ORDER.sql, False, False, False),
        ((Keeps.CONNECTION, READ_ORDER, autocommit()), IDLE, READ_ORDER.sql, False, False, False),
        ((None, READ_ORDER, autocommit()), IDLE, READ_ORDER.sql, False, False, False),
    ],
)
def test_sessions_look_like_measured_real_ones(
    left: tuple[Keeps | None, Request, Pool], state: SessionState, text: str, *, xact: bool, xid: bool, xmin: bool
) -> None:
    """Each row is a way in which a request leaves its session."""
    session = session_after(*left)
    assert session.state is state
    assert session.statement.text == text
    assert (session.xact_start is not None) is xact
    assert (session.backend_xid_age is not None) is xid
    assert (session.backend_xmin_age is not None) is xmin
    assert (session.wait_event_type, session.wait_event) == ("Client", "ClientRead")


def test_reset_and_unused_connections_are_recognised() -> None:
    """After asyncpg's reset, a session counts as returned to the pool; a connection only opened, as never used."""
    assert session_after(None, READ_ORDER, asyncpg_pool(0, 5)).statement.kind is StatementKind.RETURNED
    unused = last_sessions(story(Service(pool=asyncpg_pool(3, 5), traffic=steady(0), instances=((0, 1),)), minutes=1))
    assert Counter(session.statement.kind for session in unused) == {StatementKind.NEVER_USED: 3}


def test_leaked_sessions_never_move_and_are_recorded() -> None:
    """The ledger of a story agrees with the sessions on its server."""
    played_story = story(Service(requests=(LIST_ORDERS, leaking(READ_ORDER, per_minute=6, begin=60))), minutes=5)
    world = begin(played_story)
    *_, before, after = (poll.outcome for poll in polls(played_story, world))
    assert isinstance(before, Snapshot)
    assert isinstance(after, Snapshot)
    leaked = {entry.id for entry in world.ledger if entry.at < 280}
    assert len(leaked) == pytest.approx(22, abs=4)
    assert leaked <= {s.id for s in after.sessions if s.state is IN_TRANSACTION}
    moved = {session.id: session.state_change for session in after.sessions}
    assert all(moved[s.id] == s.state_change for s in before.sessions if s.id in leaked)


def test_waiters_for_a_row_queue_behind_its_holder() -> None:
    """The first waits for the holder's transaction, the others wait for the first."""
    pay = replace(PAY_ORDER, locks="orders:1")
    played_story = story(row_holder(starts=30, seconds=60), Service(requests=(pay,), traffic=steady(0.2)), minutes=2)
    at_80, at_110 = (snapshots(played_story)[i].sessions for i in (7, 10))
    (holder,) = (session for session in at_80 if session.state is IN_TRANSACTION)
    waiting = sorted((s for s in at_80 if s.wait_event_type == "Lock"), key=lambda s: s.state_change or 0)
    assert len(waiting) >= 3
    assert waiting[0].blocked_by == (holder.id.pid,)
    assert waiting[2].blocked_by == (waiting[0].id.pid, waiting[1].id.pid)
    assert [session.wait_event for session in waiting[:2]] == ["transactionid", "tuple"]
    assert not any(session.wait_event_type for session in at_110 if session.state is SessionState.ACTIVE)


def test_readers_queue_behind_a_waiting_migration() -> None:
    """The queue is fair: a session that conflicts with one ahead waits, too."""
    reader = Script(application="late", steps=(Run("SELECT 1 FROM orders", locks="orders", shared=True),), starts=40)
    played_story = story(report(starts=10, seconds=60, locks="orders"), migration(starts=30), reader, minutes=2)
    sessions = {session.client.application: session for session in snapshots(played_story)[5].sessions}
    assert sessions["alembic"].blocked_by == (sessions["reports"].id.pid,)
    assert sessions["late"].blocked_by == (sessions["alembic"].id.pid,)
    assert snapshots(played_story)[-1].sessions == ()


def kinds_of_end(snapshot: Snapshot) -> Iterable[tuple[int, int]]:
    """Return (established, fatal) of each database."""
    return [(counters.established, counters.fatal) for counters in snapshot.databases]


def test_the_server_ends_sessions_that_are_idle_in_transaction_too_long() -> None:
    """It counts them as fatal. Other sessions stay."""
    held = Script(application="x", steps=(Begin(), Run("SELECT a FROM t")), leaks=True, copies=3)
    server = Postgres(idle_in_transaction_session_timeout=45)
    shown = snapshots(story(held, minutes=2, server=server))
    assert [len(snapshot.sessions) for snapshot in shown[:6]] == [3, 3, 3, 3, 0, 0]
    assert kinds_of_end(shown[-1]) == [(3, 3)]


@pytest.mark.parametrize(
    ("server", "limit", "most"),
    [
        (Postgres(max_connections=20), (LimitScope.SERVER, "db"), 16),
        (Postgres(role_limits=(("app", 9),)), (LimitScope.ROLE, "app"), 9),
        (Postgres(database_limits=(("shop", 7),)), (LimitScope.DATABASE, "shop"), 7),
    ],
)
def test_the_server_refuses_beyond_its_limits(server: Postgres, limit: tuple[LimitScope, str], most: int) -> None:
    """One slot is used by the monitor. The time at which the limit was reached is recorded."""
    leak = leaking(READ_ORDER, per_minute=20, keeps=Keeps.CONNECTION)
    played_story = story(Service(pool=per_request(), requests=(leak,), traffic=steady(0)), minutes=5, server=server)
    world = begin(played_story)
    outcomes = [poll.outcome for poll in polls(played_story, world)]
    assert max(len(each.sessions) for each in outcomes if isinstance(each, Snapshot)) == most
    assert list(world.server.exhausted_at) == [limit]


def test_a_restart_ends_every_session_and_fails_polls() -> None:
    """Clients reconnect after the restart, and the server's start time changes."""
    played_story = story(Service(traffic=steady(20)), restarts=((100, 25),), minutes=5)
    outcomes = [poll.outcome for poll in polls(played_story, begin(played_story))]
    assert [isinstance(outcome, Failure) for outcome in outcomes[8:14]] == [False, True, True, True, False, False]
    first, final = outcomes[0], outcomes[-1]
    assert isinstance(first, Snapshot)
    assert isinstance(final, Snapshot)
    assert first.server.started_at != final.server.started_at
    assert not {s.id for s in first.sessions} & {s.id for s in final.sessions}
    assert final.sessions


def test_a_story_is_the_same_each_time() -> None:
    """Its random numbers depend only on its name and a seed."""
    played_story = story(Service(requests=(LIST_ORDERS, leaking(READ_ORDER, per_minute=6))), minutes=3)
    assert snapshots(played_story) == snapshots(played_story)
    assert snapshots(played_story) != snapshots(replace(played_story, name="another"))
