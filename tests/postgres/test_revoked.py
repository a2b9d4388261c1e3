"""A real REVOKE while sessions leak: findings wait until their sessions can be seen again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from io import BufferedReader, BytesIO

import psycopg
from psycopg import sql

from pgwatch_sessions.commands.replay.polls import replay
from pgwatch_sessions.core.findings import FindingState
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, SessionState, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.metrics.samples import leaked_sessions
from pgwatch_sessions.recording import BadLine, encode_poll, read_polls
from tests.support.polling import held, poll, seen, session_of
from tests.support.servers import Database
from tests.support.situations import idle, idle_in_transaction, role

#: Findings open and close within a second, so that the test need not wait for minutes.
POLICY = Policy(hold_limit=0.4)
BETWEEN = 0.05
LEAKED = 4


class Watch:
    """A server that is polled through one held connection, and all that was recorded of it."""

    def __init__(self, poll: Callable[[], Awaitable[Snapshot | Failure]]) -> None:
        self._poll = poll
        self.state = ServerState(server="db")
        self.recorded = b""

    async def until(self, reached: Callable[[ServerState], bool]) -> ServerState:
        """Poll until the state is as wanted."""
        async with asyncio.timeout(30):
            while True:
                snapshot = seen(await self._poll())
                self.recorded += encode_poll(snapshot, server="db", at=snapshot.taken_at)
                at = snapshot.taken_at
                self.state, _ = advance(self.state, snapshot, policy=POLICY, at=at, duration=0.01)
                if reached(self.state):
                    return self.state
                await asyncio.sleep(BETWEEN)

    async def for_limits(self, limits: float) -> ServerState:
        """Poll for so many hold limits, by the server's clock."""
        begin = self.state.last_poll_at or 0.0
        return await self.until(lambda state: (state.last_poll_at or 0.0) >= begin + limits * POLICY.hold_limit)


@contextlib.contextmanager
def leaking(dsn: str, count: int = LEAKED) -> Iterator[None]:
    """Hold so many transactions open."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(idle_in_transaction(dsn, "SELECT 1 AS leaked FROM pg_class"))
        yield


def run_as_superuser(database: Database, statement: str, *names: str) -> None:
    """Run a statement with these names in it."""
    with psycopg.connect(database.dsn(), autocommit=True) as superuser:
        superuser.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def total_leaked(state: ServerState) -> float:
    """Return the sum of the series `leaked_sessions`."""
    return float(sum(value for _, value in leaked_sessions(state)))


def counters(state: ServerState) -> list[int]:
    """Return how many findings were opened and closed, and how many sessions joined them."""
    counted = state.leak_counters
    return [sum(each.values()) for each in (counted.opened, counted.closed, counted.sessions)]


def test_a_revoke_hides_a_leak_and_a_grant_shows_it_again(any_database: Database) -> None:
    """For four limits without pg_monitor the leak stays one finding of as many sessions as are still connected."""
    dsn = any_database.dsn(application_name="orders")

    async def watch(watcher: str) -> None:
        async with held(any_database.dsn(user=watcher)) as connection:
            watched = Watch(connection.poll)
            await watched.until(lambda state: total_leaked(state) == LEAKED + 1 and state.findings[0].is_leak)
            (before,) = watched.state.findings
            run_as_superuser(any_database, "REVOKE pg_monitor FROM {}", watcher)
            unseen = await watched.for_limits(4)
            assert unseen.summary is not None
            assert unseen.summary.hidden >= LEAKED + 1
            assert [each.state for each in unseen.findings] == [FindingState.UNSEEN]
            assert unseen.findings[0].sessions == before.sessions
            assert (total_leaked(unseen), counters(unseen)) == (LEAKED + 1, [1, 0, LEAKED + 1])
            one_more.close()
            fewer = await watched.until(lambda state: total_leaked(state) == LEAKED)
            assert [each.state for each in fewer.findings] == [FindingState.UNSEEN]
            run_as_superuser(any_database, "GRANT pg_monitor TO {}", watcher)
            again = await watched.for_limits(4)
            assert [(each.id, each.state) for each in again.findings] == [(before.id, FindingState.OPEN)]
            assert (total_leaked(again), counters(again)) == (LEAKED, [1, 0, LEAKED + 1])
            recordings.append((watched.recorded, again))

    recordings: list[tuple[bytes, ServerState]] = []
    with (
        role(any_database.dsn(), "watcher", member_of=["pg_monitor"]) as watcher,
        leaking(dsn),
        contextlib.ExitStack() as one_more,
    ):
        one_more.enter_context(leaking(dsn, 1))
        asyncio.run(watch(watcher))
    (recorded, live), *_ = recordings
    assert b'"backend_start":null' in recorded
    replayed = [
        each for each in replay(read_polls(BufferedReader(BytesIO(recorded))), POLICY) if not isinstance(each, BadLine)
    ]
    states = [finding.state for each in replayed for finding in each.state.findings]
    assert FindingState.UNSEEN in states
    assert counters(replayed[-1].state) == counters(live)
    assert [each.id for each in replayed[-1].state.findings] == [each.id for each in live.findings]


def test_a_role_that_sees_one_of_two_clients_judges_that_one(any_database: Database) -> None:
    """Membership in a role shows its sessions. What is seen of the others is pid, database, user and application."""
    with (
        role(any_database.dsn(), "seen_by_members") as visible,
        role(any_database.dsn(), "watcher", member_of=[visible]) as watcher,
        idle_in_transaction(any_database.dsn(user=visible, application_name="reports")) as reports,
        idle_in_transaction(any_database.dsn(application_name="orders")) as orders,
        idle(any_database.dsn(user=watcher)),
    ):
        snapshot = seen(poll(any_database.dsn(user=watcher)))
    assert session_of(reports, snapshot).state is SessionState.IDLE_IN_TRANSACTION
    unseen = session_of(orders, snapshot)
    assert (unseen.state, unseen.id.backend_start) == (None, None)
    assert unseen.client == (any_database.name, "postgres", "orders")
