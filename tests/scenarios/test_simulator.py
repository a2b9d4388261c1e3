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
    """Make a story of these parts."""
    return Story(name="test", family="test", parts=parts, minutes=minutes, **fields)  # type: ignore[arg-type]


def snapshots(told: Story) -> list[Snapshot]:
    """Play a story whose polls all succeed."""
    outcomes = [poll.outcome for poll in polls(told, begin(told))]
    return [outcome for outcome in outcomes if isinstance(outcome, Snapshot)]


def last(told: Story) -> tuple[Session, ...]:
    """Return the sessions of the last poll."""
    return snapshots(told)[-1].sessions


def a_pool(pool: Pool) -> tuple[World, RunningPool]:
    """Make a pool on an otherwise empty server, with its first connections open."""
    world = World(1, Postgres())
    running = RunningPool(world.simulation, world.server, replace(pool, connecting=exactly(0.01)), HERE)
    world.simulation.run_until(1.0)
    return world, running


def use(world: World, pool: RunningPool, seconds: float, used: list[int]) -> Process[None]:
    """Take a connection, note its pid, and give it back later."""
    backend = yield from pool.acquire()
    used.append(backend.pid)
    yield from world.server.run(backend, "SELECT 1 FROM t", seconds)
    pool.release(backend)


def in_turn(world: World, pool: RunningPool, times: int) -> list[int]:
    """Use the pool so often, one after the other."""
    used: list[int] = []
    for _ in range(times):
        world.simulation.start(use(world, pool, 0.1, used))
        world.simulation.run_until(world.simulation.now + 1)
    return used


def at_once(world: World, pool: RunningPool, number: int, seconds: float = 0.5) -> list[int]:
    """Use so many connections at the same time."""
    used: list[int] = []
    for _ in range(number):
        world.simulation.start(use(world, pool, seconds, used))
    world.simulation.run_until(world.simulation.now + 2 * seconds + 1)
    return used


def test_queue_pool_hands_out_first_what_came_back_first() -> None:
    """All its connections are used in turn, so that none polls old."""
    world, pool = a_pool(sqlalchemy(4, 0))
    opened = at_once(world, pool, 4)
    assert in_turn(world, pool, 8) == opened * 2


def test_asyncpg_pool_hands_out_first_what_came_back_last() -> None:
    """One after the other needs one connection: the others stay frozen however busy it is."""
    world, pool = a_pool(asyncpg_pool(4, 8))
    assert len(set(in_turn(world, pool, 8))) == 1
    assert len(world.server.backends) == 4


def test_a_pool_never_opens_while_one_lies_idle() -> None:
    """Work that needs three at most never has more than three."""
    world, pool = a_pool(sqlalchemy(10, 10))
    for _ in range(5):
        at_once(world, pool, 3)
    assert (pool.opened, pool.idle, len(world.server.backends)) == (3, 3, 3)


def test_overflow_connections_are_closed_when_they_come_back() -> None:
    """Only `size` connections are kept."""
    world, pool = a_pool(sqlalchemy(2, 3))
    assert len(set(at_once(world, pool, 5))) == 5
    assert len(world.server.backends) == 2


def test_an_exhausted_pool_lets_requests_wait_and_then_gives_up() -> None:
    """Who waits is served by who comes back; who waits too long is not served."""
    world, pool = a_pool(sqlalchemy(1, 0, timeout=3))
    assert len(at_once(world, pool, 3, seconds=0.5)) == 3
    with pytest.raises(PoolTimedOut):
        at_once(world, pool, 3, seconds=4)
    assert pool.timed_out == 1
    assert len(world.server.backends) == 1


@pytest.mark.parametrize("pool", [sqlalchemy(5, 5), asyncpg_pool(3, 8), pgx(7), autocommit(4, 2), node_postgres(9)])
def test_a_pool_never_has_more_than_its_limit(pool: Pool) -> None:
    """However much is asked of it."""
    service = Service(pool=replace(pool, timeout=2), instances=((0, 1),), traffic=steady(60))
    busy = replace(service, requests=(Request(sql="SELECT x FROM t", takes=about(0.3)),))
    assert max(len(snapshot.sessions) for snapshot in snapshots(story(busy, minutes=3))) == pool.most


def test_nothing_stays_open_without_a_pool() -> None:
    """After the traffic there is no session."""
    assert last(story(Service(pool=per_request(), traffic=then_silence(20, at=60)), minutes=3)) == ()


def left_by(keeps: Keeps | None, request: Request, pool: Pool) -> Session:
    """Return a session that such a request left behind."""
    asked = leaking(request, per_minute=2, keeps=keeps) if keeps else replace(request, per_minute=2)
    left, *_ = last(story(Service(pool=pool, requests=(asked,), traffic=steady(0), instances=((0, 1),)), minutes=2))
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
def test_sessions_look_as_real_ones_were_measured(
    left: tuple[Keeps | None, Request, Pool], state: SessionState, text: str, *, xact: bool, xid: bool, xmin: bool
) -> None:
    """Each row of the table of what the server shows."""
    session = left_by(*left)
    assert session.state is state
    assert session.statement.text == text
    assert (session.xact_start is not None) is xact
    assert (session.backend_xid_age is not None) is xid
    assert (session.backend_xmin_age is not None) is xmin
    assert (session.wait_event_type, session.wait_event) == ("Client", "ClientRead")


def test_a_pool_s_other_ends() -> None:
    """Asyncpg's reset counts as handed back, a connection that was only opened as never used."""
    assert left_by(None, READ_ORDER, asyncpg_pool(0, 5)).statement.kind is StatementKind.RETURNED
    unused = last(story(Service(pool=asyncpg_pool(3, 5), traffic=steady(0), instances=((0, 1),)), minutes=1))
    assert Counter(session.statement.kind for session in unused) == {StatementKind.NEVER_USED: 3}


def test_what_is_leaked_never_moves_and_is_written_down() -> None:
    """The truth about a story is what its server shows."""
    told = story(Service(requests=(LIST_ORDERS, leaking(READ_ORDER, per_minute=6, begin=60))), minutes=5)
    world = begin(told)
    *_, before, after = (poll.outcome for poll in polls(told, world))
    assert isinstance(before, Snapshot)
    assert isinstance(after, Snapshot)
    leaked = {entry.id for entry in world.ledger if entry.at < 280}
    assert len(leaked) == pytest.approx(22, abs=4)
    assert leaked <= {s.id for s in after.sessions if s.state is IN_TRANSACTION}
    moved = {session.id: session.state_change for session in after.sessions}
    assert all(moved[s.id] == s.state_change for s in before.sessions if s.id in leaked)


def test_waiters_for_a_row_queue_behind_its_holder() -> None:
    """The first waits for the holder's transaction, the others for the first."""
    pay = replace(PAY_ORDER, locks="orders:1")
    told = story(row_holder(starts=30, seconds=60), Service(requests=(pay,), traffic=steady(0.2)), minutes=2)
    at_80, at_110 = (snapshots(told)[i].sessions for i in (7, 10))
    (holder,) = (session for session in at_80 if session.state is IN_TRANSACTION)
    waiting = sorted((s for s in at_80 if s.wait_event_type == "Lock"), key=lambda s: s.state_change or 0)
    assert len(waiting) >= 3
    assert waiting[0].blocked_by == (holder.id.pid,)
    assert waiting[2].blocked_by == (waiting[0].id.pid, waiting[1].id.pid)
    assert [session.wait_event for session in waiting[:2]] == ["transactionid", "tuple"]
    assert not any(session.wait_event_type for session in at_110 if session.state is SessionState.ACTIVE)


def test_readers_queue_behind_a_migration_that_waits_itself() -> None:
    """A fair queue: who would conflict with somebody ahead waits."""
    reader = Script(application="late", steps=(Run("SELECT 1 FROM orders", locks="orders", shared=True),), starts=40)
    told = story(report(starts=10, seconds=60, locks="orders"), migration(starts=30), reader, minutes=2)
    sessions = {session.client.application: session for session in snapshots(told)[5].sessions}
    assert sessions["alembic"].blocked_by == (sessions["reports"].id.pid,)
    assert sessions["late"].blocked_by == (sessions["alembic"].id.pid,)
    assert snapshots(told)[-1].sessions == ()


def kinds_of_end(snapshot: Snapshot) -> Iterable[tuple[int, int]]:
    """Return (established, fatal) of each database."""
    return [(counters.established, counters.fatal) for counters in snapshot.databases]


def test_the_server_ends_transactions_that_sit_idle_too_long() -> None:
    """And counts them; the others stay."""
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
    """One slot is the monitor's own; when the limit was reached is known."""
    leak = leaking(READ_ORDER, per_minute=20, keeps=Keeps.CONNECTION)
    told = story(Service(pool=per_request(), requests=(leak,), traffic=steady(0)), minutes=5, server=server)
    world = begin(told)
    outcomes = [poll.outcome for poll in polls(told, world)]
    assert max(len(each.sessions) for each in outcomes if isinstance(each, Snapshot)) == most
    assert list(world.server.exhausted_at) == [limit]


def test_a_restart_ends_every_session_and_fails_polls() -> None:
    """Clients come back when the server does; its start time tells."""
    told = story(Service(traffic=steady(20)), restarts=((100, 25),), minutes=5)
    outcomes = [poll.outcome for poll in polls(told, begin(told))]
    assert [isinstance(outcome, Failure) for outcome in outcomes[8:14]] == [False, True, True, True, False, False]
    first, final = outcomes[0], outcomes[-1]
    assert isinstance(first, Snapshot)
    assert isinstance(final, Snapshot)
    assert first.server.started_at != final.server.started_at
    assert not {s.id for s in first.sessions} & {s.id for s in final.sessions}
    assert final.sessions


def test_the_same_story_is_the_same_each_time() -> None:
    """Chance comes from the story's name and a seed alone."""
    told = story(Service(requests=(LIST_ORDERS, leaking(READ_ORDER, per_minute=6))), minutes=3)
    assert snapshots(told) == snapshots(told)
    assert snapshots(told) != snapshots(replace(told, name="another"))
