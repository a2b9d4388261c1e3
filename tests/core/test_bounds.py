"""What strangers choose (names, numbers of sessions) must not decide how much memory the core takes."""

import pytest

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, SessionState
from pgwatch_sessions.core.state import ServerState, advance
from tests.support.values import NOW, session, snapshot


@pytest.mark.promise("Labels and memory are bounded, whatever applications are called.")
def test_application_names_without_end_are_forgotten() -> None:
    """At 12 polls, 1,000 sessions of applications that were never seen before: 5,000 clients at most are remembered.

    `make bench` measures the memory that a million names take.
    """
    state = ServerState(server="db")
    per_poll = 1_000
    for number in range(12):
        at = NOW + 10 * number
        sessions = [
            session(i, client=Client("shop", "app", f"job-{number}-{i}"), born=at - 5, since=at - 1)
            for i in range(per_poll)
        ]
        state, _ = advance(state, snapshot(*sessions, at=at), policy=Policy(), at=at, duration=0.01)
        assert len(state.memory.history.habits) <= 5_000 + per_poll
    assert len(state.labelled.seen_at) <= Policy().max_clients


def test_a_client_whose_every_session_leaks_is_one_finding() -> None:
    """Two thousand held sessions are many members, not many findings."""
    state = ServerState(server="db")
    for poll in range(4):
        at = NOW + 30 * poll
        held = [
            session(i, SessionState.IDLE_IN_TRANSACTION, since=NOW - 100 - i / 100, born=NOW - 1000)
            for i in range(2_000)
        ]
        state, _ = advance(state, snapshot(*held, at=at), policy=Policy(), at=at, duration=0.01)
    (finding,) = state.findings
    assert len(finding.sessions) == 2_000
