from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgwatch_sessions.core.client_names import client_of
from pgwatch_sessions.core.events import DiagnosisChanged, LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, Failure, FailureReason, Session, SessionId, SessionState, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.core.statements import parse_statement
from tests.scenarios.leaks import LEAKS
from tests.scenarios.playing import play
from tests.scenarios.story import Story
from tests.support.values import NOW, session, snapshot

INTERVAL, POLLS = 30.0, 20
# Mostly one site of one client, so that leaks recur.
STATEMENTS = (
    *("SELECT a FROM t WHERE id = 7",) * 5,
    "UPDATE t SET a = 'x'",
    *(f"SELECT a FROM {table}" for table in "uvw"),  # enough sites to be merged as `various`
    "ROLLBACK",
    "COMMIT;",
    "",
    "BEGIN;",
    "LISTEN x",
)
CLIENTS = (*(("shop", "app", "orders"),) * 4, ("shop", "app", ""), ("shop", "app", "psql"), ("crm", "crm", "mail"))
FindingEvent = LeakOpened | LeakChanged | LeakClosed


class Life(NamedTuple):
    """A session over several polls."""

    pid: int
    client: tuple[str, str, str]
    state: SessionState | None
    sql: str
    first: int
    last: int
    #: Polls between two state changes; 0 means that it never moves.
    moves: int
    xmin: int | None

    def seen(self, poll: int) -> Session | None:
        """Return what a poll reads of this session."""
        if not self.first <= poll <= self.last:
            return None
        moved = self.first if not self.moves else poll - (poll - self.first) % self.moves
        return session(
            self.pid,
            self.state,
            client=client_of(*self.client, None),
            born=NOW + self.first * INTERVAL - 5 - self.pid / 10,
            since=NOW + moved * INTERVAL - 1 - self.pid / 10,
            query=self.sql,
            backend_xmin_age=self.xmin,
        )


LIVES = st.builds(
    Life,
    pid=st.integers(1, 30),
    client=st.sampled_from(CLIENTS),
    state=st.sampled_from((*(SessionState.IDLE_IN_TRANSACTION,) * 4, SessionState.IDLE, *SessionState, None)),
    sql=st.sampled_from(STATEMENTS),
    first=st.integers(0, POLLS - 2),
    last=st.integers(1, POLLS) | st.just(POLLS),
    moves=st.sampled_from((0, 0, 0, 1, 4)),
    xmin=st.none() | st.integers(0, 10**9),
)


class Tale(NamedTuple):
    """Sessions, and the polls that fail."""

    lives: tuple[Life, ...]
    failing: frozenset[int]

    @property
    def polls(self) -> tuple[Snapshot | Failure, ...]:
        """Return the outcome of each poll. Pids are unique at each time, and are reused."""
        lives: list[Life] = []
        for life in self.lives:
            if not any(
                life.pid == other.pid and life.first <= other.last and other.first <= life.last for other in lives
            ):
                lives.append(life)
        return tuple(
            Failure(reason=FailureReason.TIMEOUT)
            if poll in self.failing
            else snapshot(*(s for life in lives if (s := life.seen(poll))), at=NOW + poll * INTERVAL)
            for poll in range(POLLS)
        )


TALES = st.builds(
    Tale,
    lives=st.lists(LIVES, max_size=10).map(tuple) | st.lists(LIVES, min_size=10, max_size=30).map(tuple),
    failing=st.frozensets(st.integers(0, POLLS - 1), max_size=2),
)


class Course(NamedTuple):
    """The state after each poll, and the events of each poll."""

    states: tuple[ServerState, ...]
    events: tuple[tuple[object, ...], ...]


def follow(outcomes: Sequence[Snapshot | Failure], policy: Policy | None = None) -> Course:
    """Advance the core over all polls."""
    state, states, reported = ServerState(server="db"), [], []
    for i, outcome in enumerate(outcomes):
        state, events = advance(state, outcome, policy=policy or Policy(), at=NOW + i * INTERVAL, duration=0.01)
        states.append(state)
        reported.append(tuple(event for event in events if isinstance(event, FindingEvent | DiagnosisChanged)))
    return Course(tuple(states), tuple(reported))


def essence(finding: Finding) -> tuple[object, ...]:
    """Return everything of a finding except the order of its sessions."""
    return finding.key, finding.severity, _ids(finding), frozenset(finding.origins), finding.since, finding.total


@given(TALES, st.randoms(use_true_random=False))
def test_the_order_of_sessions_never_matters(tale: Tale, random: Random) -> None:
    """The server returns sessions in any order."""

    def shuffled(outcome: Snapshot | Failure) -> Snapshot | Failure:
        if isinstance(outcome, Failure):
            return outcome
        sessions = list(outcome.sessions)
        random.shuffle(sessions)
        return replace(outcome, sessions=tuple(sessions))

    one, other = follow(tale.polls), follow([shuffled(outcome) for outcome in tale.polls])
    for state, same in zip(one.states, other.states, strict=True):
        assert {essence(finding) for finding in state.findings} == {essence(finding) for finding in same.findings}
        verdicts = {client: diagnosis.verdict for client, diagnosis in state.diagnoses.items()}
        assert verdicts == {client: diagnosis.verdict for client, diagnosis in same.diagnoses.items()}
        assert state.exhaustion == same.exhaustion


@given(TALES, st.integers(1, POLLS))
def test_the_same_poll_twice_has_no_events(tale: Tale, number: int) -> None:
    """Nothing changed, and no time passed."""
    course = tale.polls[:number]
    assert follow((*course, course[-1])).events[-1] == ()


@given(TALES)
def test_a_finding_is_open_from_its_opening_to_its_closing(tale: Tale) -> None:
    """This holds after each poll. No finding opens twice, or closes without being open."""
    course, is_open = follow(tale.polls), set()
    for state, events in zip(course.states, course.events, strict=True):
        for event in events:
            match event:
                case LeakOpened(finding):
                    assert finding.key not in is_open
                    is_open.add(finding.key)
                case LeakChanged(finding, before):  # its site may have become clearer
                    is_open.remove(before.key)
                    is_open.add(finding.key)
                case LeakClosed(finding):
                    is_open.remove(finding.key)
        assert {finding.key for finding in state.findings} == is_open


@given(TALES)
def test_each_session_and_each_key_belong_to_one_finding(tale: Tale) -> None:
    """Otherwise sessions would count twice, and two series would have the same labels."""
    for state in follow(tale.polls).states:
        members = [session.id for finding in state.findings for session in finding.sessions]
        keys = [finding.key for finding in state.findings]
        assert len(members) == len(set(members))
        assert len(keys) == len(set(keys))


def ever_found(course: Course) -> set[tuple[Client, SessionId]]:
    """Return every session that was in a finding."""
    return {(f.key.client, identity) for state in course.states for f in state.findings for identity in _ids(f)}


@given(TALES, st.floats(1, 60), st.floats(1, 10))
def test_a_stricter_policy_never_finds_less(tale: Tale, hold_limit: float, factor: float) -> None:
    """Every session found with a long hold limit is also found with a shorter one."""
    lenient = ever_found(follow(tale.polls, Policy(hold_limit=hold_limit * factor)))
    assert lenient <= ever_found(follow(tale.polls, Policy(hold_limit=hold_limit)))


@pytest.mark.slow
@pytest.mark.parametrize("story", LEAKS[:8], ids=lambda story: story.name)
def test_a_stricter_policy_finds_no_later(story: Story) -> None:
    """With a shorter hold limit, the first finding on the leaking client comes no later."""
    first = []
    for hold_limit in (30.0, 60.0, 120.0):
        played = play(replace(story, minutes=15), policy=Policy(hold_limit=hold_limit))
        clients = {truth.client for truth in played.story.leaks}
        first.append(min((at for at, f in played.opened if f.key.client in clients), default=float("inf")))
    assert first == sorted(first)
    assert first[0] < float("inf")


TIMES = st.none() | st.floats(-1e10, 1e10, allow_nan=False)
AGES = st.none() | st.integers(-(2**31), 2**31)
NAMES = st.text(max_size=63) | st.sampled_from(("", "'", '"', "\x00\x1b[31m", "a" * 63, "- 1.2.3.4:5", "{}", "\\"))


@st.composite
def hostile_sessions(draw: st.DrawFn) -> Session:
    """Draw a session with hostile texts, on a server with an arbitrary clock."""
    sql = draw(
        st.none() | st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode(errors="replace"))
    )
    return Session(
        id=SessionId(draw(st.integers(1, 5)), draw(TIMES)),
        client=client_of(draw(NAMES), draw(NAMES), draw(NAMES), None),
        client_addr=draw(st.none() | st.sampled_from(("10.0.0.7", "::1"))),
        client_port=draw(st.none() | st.integers(-1, 65535)),
        state=draw(st.none() | st.sampled_from(SessionState)),
        state_change=draw(TIMES),
        xact_start=draw(TIMES),
        query_start=draw(TIMES),
        wait_event_type=draw(st.sampled_from((None, "Lock", "Client"))),
        wait_event=draw(st.sampled_from((None, "transactionid", "ClientRead"))),
        backend_xid_age=draw(AGES),
        backend_xmin_age=draw(AGES),
        # Includes circles, the session itself, and sessions that are gone.
        blocked_by=tuple(draw(st.lists(st.integers(0, 6), max_size=3))),
        statement=parse_statement(sql),
    )


@settings(max_examples=2 * settings().max_examples)
@given(
    st.lists(
        st.tuples(
            st.floats(-1e10, 1e10), st.lists(hostile_sessions(), max_size=6, unique_by=lambda session: session.id.pid)
        ),
        max_size=5,
    )
)
def test_no_snapshot_breaks_the_core(shown: list[tuple[float, list[Session]]]) -> None:
    """It may have any names, statements, ages, clocks, reused pids, and blockers in a circle."""
    follow([snapshot(*sessions, at=at) for at, sessions in shown])


def _ids(finding: Finding) -> frozenset[SessionId]:
    return frozenset(session.id for session in finding.sessions)
