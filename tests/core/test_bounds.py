"""What strangers choose (names, numbers of sessions) must not decide how much memory the core takes."""

from pathlib import Path

import pytest

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, SessionState
from pgwatch_sessions.core.state import ServerState, advance
from tests.support.values import NOW, session, snapshot

STATM = Path("/proc/self/statm")


def resident_mib() -> float:
    """Return the memory this process has at present."""
    return int(STATM.read_text().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(not STATM.exists(), reason="only Linux tells a process's present memory")
def test_a_million_application_names_leave_memory_flat() -> None:
    """Each poll shows 5,000 sessions of applications that were never seen before."""
    state = ServerState(server="db")
    per_poll, polls, warm = 5_000, 200, 20
    before = 0.0
    for poll in range(polls):
        at = NOW + 10 * poll
        sessions = [
            session(i, client=Client("shop", "app", f"job-{poll}-{i}"), born=at - 5, since=at - 1)
            for i in range(per_poll)
        ]
        state, _ = advance(state, snapshot(*sessions, at=at), policy=Policy(), at=at, duration=0.01)
        if poll == warm:
            before = resident_mib()
    assert per_poll * polls == 1_000_000
    assert len(state.labelled.seen_at) <= Policy().max_clients
    assert len(state.memory.history.habits) <= 2 * per_poll
    assert resident_mib() - before < 10


def test_a_client_whose_every_session_leaks_is_one_finding() -> None:
    """Ten thousand held sessions are many members, not many findings."""
    state = ServerState(server="db")
    for poll in range(4):
        at = NOW + 30 * poll
        held = [
            session(i, SessionState.IDLE_IN_TRANSACTION, since=NOW - 100 - i / 100, born=NOW - 1000)
            for i in range(10_000)
        ]
        state, _ = advance(state, snapshot(*held, at=at), policy=Policy(), at=at, duration=0.01)
    (finding,) = state.findings
    assert len(finding.sessions) == 10_000
