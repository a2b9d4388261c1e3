from dataclasses import replace

import pytest

from pgwatch_sessions.core.events import ClientsFolded, DiagnosisChanged, Event, PrivilegeMissing, ServerDown, ServerUp
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import (
    OTHER_CLIENT,
    Client,
    ConnectionLimit,
    Failure,
    FailureReason,
    LimitScope,
    ServerInfo,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.state import ServerState, advance
from tests.support.values import NOW, session, snapshot

NETWORK = Failure(reason=FailureReason.NETWORK, detail="connecting: refused")
TIMEOUT = Failure(reason=FailureReason.TIMEOUT)


def after(*outcomes: Snapshot | Failure, policy: Policy | None = None) -> tuple[ServerState, list[tuple[Event, ...]]]:
    """Return the state after these polls, and the events of each poll without changes of the diagnosis."""
    state, events = ServerState(server="db"), list[tuple[Event, ...]]()
    for i, outcome in enumerate(outcomes):
        state, changes = advance(state, outcome, policy=policy or Policy(), at=NOW + i, duration=0.01)
        events.append(tuple(change for change in changes if not isinstance(change, DiagnosisChanged)))
    return state, events


def test_up_and_down_are_reported_once_per_change() -> None:
    """A server that stays down is reported again only when the reason changes."""
    _, events = after(snapshot(), snapshot(), NETWORK, NETWORK, TIMEOUT, snapshot())
    up = ServerUp(SlotUsage(LimitScope.SERVER, "db", 100, 1))
    assert events == [(up,), (), (ServerDown(NETWORK),), (), (ServerDown(TIMEOUT),), (up,)]


def test_a_failed_poll_removes_the_sessions_and_keeps_the_history() -> None:
    """After a failed poll the sessions are neither zero nor what they were before."""
    state, _ = after(snapshot(session()), NETWORK)
    assert state.summary is None
    assert state.failure == NETWORK
    assert state.last_success == NOW
    assert state.poll_failures[FailureReason.NETWORK] == 1
    assert sum(state.poll_durations.counts) == 2
    assert len(state.memory.history.tracks) == 1


def test_missing_privilege_and_folding_are_reported_once() -> None:
    """A failed poll in between does not repeat the reports."""
    hidden = snapshot(*(session(i, None, client=Client("shop", "app", str(i))) for i in range(3)))
    _, events = after(hidden, NETWORK, hidden, hidden, policy=Policy(max_clients=1))
    assert events[0][1:] == (PrivilegeMissing("pgwatch_sessions", 3, 3), ClientsFolded(2))
    assert [list(map(type, each)) for each in events[2:]] == [[ServerUp], []]


def test_sessions_of_a_managed_service_itself_do_not_count_as_hidden() -> None:
    """No GRANT makes them visible, so they are not reported as a missing privilege."""
    service = session(1, None, client=Client("rdsadmin", "rdsadmin", "(none)"))
    for others, hidden in (((session(2),), 0), ((session(2, None),), 1)):
        state, events = after(snapshot(service, *others))
        assert state.summary is not None
        assert state.summary.hidden == hidden
        assert (PrivilegeMissing("pgwatch_sessions", 1, 2) in events[0]) == bool(hidden)


def test_every_session_is_in_exactly_one_summary() -> None:
    """Clients beyond the budget are combined into one; no session is lost or counted twice."""
    sessions = [session(i, SessionState.IDLE, client=Client("shop", "app", str(i % 5))) for i in range(50)]
    state, _ = after(snapshot(*sessions), policy=Policy(max_clients=2))
    assert state.summary is not None
    assert {summary.client for summary in state.summary.clients} >= {OTHER_CLIENT}
    assert len(state.summary.clients) == 3
    assert sum(summary.sessions for summary in state.summary.clients) == 50
    assert state.summary.folded == 3


LIMITED = ServerInfo(
    max_connections=10,
    superuser_reserved_connections=3,
    reserved_connections=2,
    role_limits=(ConnectionLimit("app", 4), ConnectionLimit("pgwatch_sessions", 2)),
    database_limits=(ConnectionLimit("shop", 6),),
)


def test_slots_are_those_that_ordinary_roles_can_use() -> None:
    """Our own session uses a slot of the server, of its role and of its database."""
    state, _ = after(snapshot(*(session(i) for i in range(3)), server=LIMITED))
    assert state.summary is not None
    assert state.summary.slots == (
        SlotUsage(LimitScope.SERVER, "db", 5, 4),
        SlotUsage(LimitScope.ROLE, "app", 4, 3),
        SlotUsage(LimitScope.DATABASE, "shop", 6, 3),
    )
    assert not state.summary.exhausted


@pytest.mark.parametrize(("application", "listed"), [("pgwatch-sessions", False), ("orders", True)])
def test_the_limit_of_our_own_role_is_no_limit_of_an_application(application: str, listed: bool) -> None:
    """It is listed, and so forecast, only if another program logs in as our role. A second daemon is none."""
    ours = session(1, client=Client("postgres", "pgwatch_sessions", application))
    state, _ = after(snapshot(ours, server=LIMITED))
    assert state.summary is not None
    own = SlotUsage(LimitScope.ROLE, "pgwatch_sessions", 2, 2)
    assert (own in state.summary.slots, own.limit in state.exhaustion) == (listed, listed)


def test_a_server_is_exhausted_when_the_ordinary_slots_are_gone() -> None:
    """The slots that remain are reserved for privileged roles."""
    state, _ = after(snapshot(*(session(i) for i in range(4)), server=LIMITED))
    assert state.summary is not None
    assert state.summary.exhausted


def test_unknown_limits_have_no_slots() -> None:
    """A recording may lack the limits."""
    state, _ = after(snapshot(session(), server=ServerInfo()))
    assert state.summary is not None
    assert state.summary.slots == ()
    assert not state.summary.exhausted


IDLE_IN_TRANSACTION = SessionState.IDLE_IN_TRANSACTION


@pytest.mark.parametrize(
    ("later", "seconds"),
    [
        pytest.param(
            [session(1, SessionState.ACTIVE, since=NOW + 4, query_start=NOW + 4)],
            14.0,
            id="moved on when its next statement began",
        ),
        pytest.param([session(1, IDLE_IN_TRANSACTION, since=NOW + 5, query_start=NOW + 4)], 14.0, id="holds again"),
        pytest.param([], 10.0, id="gone: it lasted at least as long as it was seen"),
    ],
)
def test_a_hold_is_observed_when_it_ends(later: list[object], seconds: float) -> None:
    """A session is held for ten seconds at one poll and has moved at the next."""
    held = snapshot(session(1, IDLE_IN_TRANSACTION, since=NOW - 10))
    state, _ = after(held, snapshot(*later, at=NOW + 10))  # type: ignore[arg-type]  # sessions, as parametrised
    assert state.hold_durations["shop"].sum == pytest.approx(seconds)


def test_a_hold_that_goes_on_is_not_observed() -> None:
    """Nor is a hold that a restart of the server ended, nor one of a session that was hidden."""
    held = session(1, IDLE_IN_TRANSACTION, since=NOW - 10)
    hidden = replace(held, state=None, state_change=None)
    restarted = snapshot(server=ServerInfo(started_at=NOW + 5), at=NOW + 10)
    for later in (snapshot(held, at=NOW + 10), restarted, snapshot(hidden, at=NOW + 10), NETWORK):
        state, _ = after(snapshot(held), later)
        assert state.hold_durations == {}


def test_a_hold_is_followed_over_a_failed_poll() -> None:
    """A hold that ended during failed polls is observed at the next successful one."""
    held = snapshot(session(1, IDLE_IN_TRANSACTION, since=NOW - 10))
    moved = snapshot(session(1, SessionState.IDLE, since=NOW + 15, query_start=NOW + 15), at=NOW + 20)
    state, _ = after(held, NETWORK, moved)
    assert state.hold_durations["shop"].sum == pytest.approx(25.0)


def test_databases_with_a_histogram_are_bounded() -> None:
    """Database names are labels too, so their number is bounded."""
    policy = Policy(max_clients=2)
    polls = []
    for i in range(5):
        client = Client(f"db{i}", "app", "orders")
        polls += [snapshot(session(i, IDLE_IN_TRANSACTION, client=client, since=NOW - 10)), snapshot(at=NOW + 1)]
    state, _ = after(*polls, policy=policy)
    assert set(state.hold_durations) == {"db0", "db1", "other"}
    assert sum(sum(histogram.counts) for histogram in state.hold_durations.values()) == 5
