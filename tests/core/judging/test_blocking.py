from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.judging.blocking import Blocking, harm_of
from pgwatch_sessions.core.model import Session
from tests.support.values import session


def waiting(queue: dict[int, tuple[int, ...]]) -> list[Session]:
    """Return sessions that wait for each other: pid to the pids that it waits for."""
    pids = sorted(set(queue) | {pid for ahead in queue.values() for pid in ahead})
    return [session(pid, blocked_by=queue.get(pid, ())) for pid in pids]


def test_sessions_that_wait_behind_others_wait_for_the_first() -> None:
    """2 waits for 1; 3 and 4 wait for 2; 5 waits for nobody."""
    blocking = Blocking([*waiting({2: (1,), 3: (2,), 4: (2, 3)}), session(5)])
    assert set(blocking.waiting_for({1})) == {2, 3, 4}
    assert set(blocking.waiting_for({2})) == {3, 4}
    assert set(blocking.waiting_for({5})) == set()
    assert blocking.roots_of(4) == {1}
    assert blocking.roots_of(1) == frozenset()


def test_held_sessions_do_not_harm_each_other() -> None:
    """Sessions of one finding may block each other. Others that wait are counted once."""
    sessions = waiting({2: (1,), 3: (1, 2)})
    harm = harm_of(sessions[:2], Blocking(sessions))
    assert harm.blocked == 1
    assert harm.slots == 2


def test_the_oldest_snapshot_and_transaction_count() -> None:
    """None if no session has one."""
    sessions = [session(1, backend_xmin_age=5, backend_xid_age=None), session(2, backend_xmin_age=9)]
    harm = harm_of(sessions, Blocking(sessions))
    assert (harm.xmin_age_max, harm.xid_age_max) == (9, None)


def test_a_deadlock_has_no_first_session() -> None:
    """The search for it ends."""
    blocking = Blocking(waiting({1: (2,), 2: (1,)}))
    assert blocking.roots_of(1) == frozenset()
    assert set(blocking.waiting_for({1})) == {2}


@given(
    st.dictionaries(st.integers(1, 9), st.tuples(st.integers(1, 9)) | st.tuples(st.integers(1, 9), st.integers(1, 9)))
)
def test_any_graph_of_waits_is_searched_to_its_end(queue: dict[int, tuple[int, ...]]) -> None:
    """A root never waits, and a session that has a root waits for it."""
    blocking = Blocking(waiting(queue))
    for pid in queue:
        for root in blocking.roots_of(pid):
            assert root not in queue
            assert pid in blocking.waiting_for({root})
