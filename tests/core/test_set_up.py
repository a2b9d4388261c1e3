"""Which sessions were set up and not used since: by their first statements, and by when they were opened."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pgwatch_sessions.core.history import ClientHabits, History
from pgwatch_sessions.core.model import Session, SessionState
from tests.support.values import NOW, ORDERS, session, snapshot

IDLE = SessionState.IDLE
SET_UP = "SELECT shop.begin_session()"
READ = "SELECT * FROM orders"
RETURNS = ClientHabits(seen_at=NOW, returned=10)


def opened(*births: float, query: str = SET_UP, sent_after: float = 0.1) -> list[Session]:
    """Return idle sessions that were opened at these times, and sent their last statement so many seconds later."""
    return [
        session(pid, IDLE, born=born, since=born + sent_after, query_start=born + sent_after, query=query)
        for pid, born in enumerate(births, start=1)
    ]


def follow(history: History, sessions: Sequence[Session], at: float) -> History:
    """Return what is remembered after a poll that saw these sessions."""
    return history.follow(snapshot(*sessions, at=at), rest_limit=30, window=600)[0]


def held_after(sessions: Sequence[Session], at: float = NOW, habits: ClientHabits = RETURNS) -> list[int]:
    """Return the pids of the sessions that are held, of a client that returns its sessions to a pool."""
    history = follow(History(habits={ORDERS: habits}), sessions, at)
    return [each.id.pid for each in sessions if history.is_held(each)]


@pytest.mark.parametrize(
    ("births", "held"),
    [
        pytest.param([0, 0.1, 0.2, 0.5], 0, id="a pool opens its minimum at once"),
        pytest.param([0, 3, 6, 9], 0, id="it may take some seconds"),
        pytest.param([0, 0.1], 2, id="two sessions are no minimum"),
        pytest.param([0, 4, 8, 12, 16], 5, id="a leak opens one after the other for longer"),
        pytest.param([0, 60, 120], 3, id="sessions that were opened one by one"),
        pytest.param([0, 0.1, 0.2, 60], 1, id="one that was opened later than the minimum"),
    ],
)
def test_sessions_that_were_opened_together_and_only_set_up_are_not_held(births: list[float], held: int) -> None:
    """Births in seconds after the first one. A session that was opened with the first ones was used."""
    used = session(99, IDLE, born=NOW - 1000, since=NOW - 5, query="ROLLBACK")
    assert len(held_after([*opened(*(NOW - 1000 + born for born in births)), used])) == held


def test_a_leak_may_take_a_whole_pool_in_its_first_moments() -> None:
    """None of the sessions that were opened together went on, so nothing tells their statement from a use."""
    assert held_after(opened(*[NOW - 1000.0] * 4)) == [1, 2, 3, 4]


def test_a_statement_that_is_sent_later_too_is_no_set_up() -> None:
    """All four sessions are held, because one of them sent the same statement long after it was opened."""
    together = opened(*[NOW - 1000.0] * 3, query=READ)
    (later,) = opened(NOW - 1000, query=READ, sent_after=500)
    used = session(99, IDLE, born=NOW - 1000, since=NOW - 5, query="ROLLBACK")
    assert held_after([used, *together, replace(later, id=later.id._replace(pid=9))]) == [1, 2, 3, 9]


def test_a_set_up_is_learned_from_sessions_that_go_on_from_it() -> None:
    """After three, a session that was opened alone and sent only the set-up is not held either."""
    history = History(habits={ORDERS: RETURNS})
    for turn in range(3):
        at = NOW + 20 * turn
        (new,) = opened(at - 5)
        history = follow(history, [new], at)
        used = session(1, IDLE, born=at - 5, since=at + 5, query_start=at + 5, query="ROLLBACK")
        history = follow(history, [used], at + 10)
    (alone,) = opened(NOW + 100)
    assert not follow(history, [alone], NOW + 200).is_held(alone)
    (sent_later,) = opened(NOW + 100, sent_after=60)
    assert follow(history, [sent_later], NOW + 200).is_held(sent_later)
    assert follow(follow(history, [sent_later], NOW + 200), [alone], NOW + 210).is_held(alone)
