from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from pgwatch_sessions.core.history import Cohort, History, Kill
from pgwatch_sessions.core.model import Client, DatabaseCounters, ServerInfo, Session, SessionState, Snapshot
from tests.support.values import NOW, ORDERS, session, snapshot

IDLE, HELD, ACTIVE = SessionState.IDLE, SessionState.IDLE_IN_TRANSACTION, SessionState.ACTIVE
SITE = Cohort(ORDERS, "SELECT orders")
READ = "SELECT * FROM orders WHERE id = 1"
READ_SITE = "SELECT orders"
UPDATE = "UPDATE stock SET n = n - 1"


def after(*polls: Snapshot) -> History:
    """Return what is remembered after these polls."""
    history = History()
    for poll in polls:
        history, _ = history.follow(history.recognise(poll), rest_limit=30, window=600)
    return history


def counters(database: str, *, fatal: int) -> DatabaseCounters:
    """Return the counters of a database that has terminated this number of sessions."""
    return DatabaseCounters(
        database=database,
        established=0,
        abandoned=0,
        fatal=fatal,
        killed=0,
        session_seconds=0,
        active_seconds=0,
        idle_in_transaction_seconds=0,
    )


def resting(*rests: tuple[float, str]) -> list[Snapshot]:
    """Return polls, 10 s apart, of one session that became idle at these times after these statements."""
    return [
        snapshot(session(1, IDLE, since=since, query=query), at=NOW + 10 * i) for i, (since, query) in enumerate(rests)
    ]


def test_a_hold_that_ended_sets_what_is_normal_at_its_site() -> None:
    """The longest hold counts, accurate to the time between two polls."""
    history = after(
        snapshot(session(1, HELD, since=NOW - 50, query=READ)),
        snapshot(session(1, ACTIVE, since=NOW + 5, query_start=NOW + 5), at=NOW + 10),
        snapshot(session(1, HELD, since=NOW + 11, query=READ), at=NOW + 20),
        snapshot(session(1, IDLE, since=NOW + 25, query_start=NOW + 24), at=NOW + 30),
    )
    assert history.longest_hold(SITE) == 55
    assert history.longest_hold(Cohort(ORDERS, "SELECT stock")) == 0


def test_the_longest_hold_is_forgotten_after_some_weeks() -> None:
    """A connection that was returned late hides a leak for 16 days at most. A weekly batch is still remembered."""
    day = 86_400.0
    held, ended = session(1, HELD, since=NOW - 500, query=READ), session(1, IDLE, since=NOW + 1)
    known = after(snapshot(held), snapshot(ended, at=NOW + 10))
    for days, longest in ((7, 501), (15, 501), (17, 0)):
        later, _ = known.follow(snapshot(ended, at=NOW + days * day), rest_limit=30, window=600)
        assert later.longest_hold(SITE) == longest

    again = [session(1, HELD, since=NOW + 9 * day - 50, query=READ), session(1, IDLE, since=NOW + 9 * day)]
    weekly = known
    for poll in again:
        weekly, _ = weekly.follow(snapshot(poll, at=(poll.state_change or 0) + 1), rest_limit=30, window=600)
    assert weekly.longest_hold(SITE) == 501
    later, _ = weekly.follow(snapshot(again[1], at=NOW + 18 * day), rest_limit=30, window=600)
    assert 0 < later.longest_hold(SITE) < 500


def test_nothing_is_learned_from_holds_that_ended_with_their_whole_origin() -> None:
    """A restart of the application frees its leaked sessions too."""
    held = [session(i, HELD, since=NOW - 500, query=READ) for i in range(5)]
    elsewhere = session(9, IDLE, client_addr="10.0.0.8")
    assert after(snapshot(*held), snapshot(elsewhere, at=NOW + 10)).longest_hold(SITE) == 0
    assert after(snapshot(*held), snapshot(held[0], at=NOW + 10)).longest_hold(SITE) == 500


def in_transaction(seconds: float, query: str, *, began: float = 0, **fields: object) -> Snapshot:
    """Return the poll of a session in a transaction with an xid, idle since so many seconds after NOW."""
    known: dict[str, object] = {"xact_start": NOW + began, "backend_xid_age": 3, **fields}
    held = session(1, HELD, since=NOW + seconds, query=query, **known)  # type: ignore[arg-type]  # fields of `session`
    return snapshot(held, at=NOW + seconds + 1)


@pytest.mark.parametrize(
    ("polls", "sites"),
    [
        pytest.param([in_transaction(0, UPDATE), in_transaction(20, READ)], (READ_SITE, "UPDATE stock"), id="seen"),
        pytest.param([in_transaction(0, UPDATE), in_transaction(9, READ), in_transaction(20, READ)],
                     (READ_SITE, "UPDATE stock"), id="seen some statements before"),
        pytest.param([in_transaction(0, UPDATE), in_transaction(9, "DELETE FROM jobs"), in_transaction(20, READ)],
                     (READ_SITE, "DELETE jobs"), id="the last of several"),
        pytest.param([in_transaction(0, READ), in_transaction(20, READ)], (READ_SITE,), id="not seen"),
        pytest.param([in_transaction(0, READ), in_transaction(20, UPDATE)], ("UPDATE stock",), id="it is shown"),
        pytest.param([in_transaction(0, UPDATE), in_transaction(20, READ, began=10)], (READ_SITE,),
                     id="in an earlier transaction"),
        pytest.param([in_transaction(0, UPDATE), in_transaction(20, READ, backend_xid_age=None)], (READ_SITE,),
                     id="it was rolled back to a savepoint, or wrote nothing"),
        pytest.param([in_transaction(0, UPDATE), in_transaction(20, f"{READ} /*route='/a'*/")], ("/a",),
                     id="only the last statement has tags"),
        pytest.param([in_transaction(0, f"{UPDATE} /*route='/a'*/"), in_transaction(20, READ)], (READ_SITE, "/a"),
                     id="only the write has tags"),
    ],
)  # fmt: skip
def test_the_last_write_of_a_transaction_names_its_place_too(polls: Sequence[Snapshot], sites: tuple[str, ...]) -> None:
    """Statements are seen poll by poll, so a write that runs between two polls is not known."""
    (track,) = after(*polls).tracks.values()
    assert track.sites == sites


def test_nothing_is_learned_from_a_leaked_session_that_is_gone() -> None:
    """A rolling restart frees the leaked sessions of one process after the other."""
    held = [session(i, HELD, since=NOW - 500, query=READ) for i in range(2)]
    before, _ = History().follow(snapshot(*held), rest_limit=30, window=600)
    gone = snapshot(held[0], at=NOW + 10)
    for leaked, longest in ((frozenset({held[1].id}), 0), (frozenset(), 500)):
        history, _ = before.follow(gone, rest_limit=30, window=600, leaked=leaked)
        assert history.longest_hold(SITE) == longest


def test_a_hold_that_the_server_killed_is_not_normal() -> None:
    """`idle_in_transaction_session_timeout` ended it: the counter of sessions ended by a fatal error rose."""
    held = snapshot(session(1, HELD, since=NOW - 60, query=READ), session(2), databases=[counters("shop", fatal=3)])
    gone = snapshot(session(2), at=NOW + 10, databases=[counters("shop", fatal=4)])
    history = after(held, gone)
    assert history.longest_hold(SITE) == 0
    assert history.habits[ORDERS].kills == {"SELECT orders": (Kill(NOW + 10, 60.0),)}


def test_the_life_of_a_session_that_was_opened_in_a_long_pause_was_not_seen() -> None:
    """After a short pause, such as a failed poll, it was."""
    for pause, seen in ((20, True), (3600, False)):
        at = NOW + pause
        history = after(snapshot(session(1)), snapshot(session(1), session(2, born=at - 15), at=at))
        assert {track.session.id.pid: track.birth_seen for track in history.tracks.values()} == {1: False, 2: seen}


def test_a_restart_of_the_server_ends_no_hold() -> None:
    """After a restart every session is new."""
    restarted = snapshot(session(2), at=NOW + 10, server=ServerInfo(started_at=NOW + 5))
    assert after(snapshot(session(1, HELD, since=NOW - 60, query=READ)), restarted).longest_hold(SITE) == 0


def test_a_client_that_resets_its_sessions_returns_them_to_a_pool() -> None:
    """It is known after three resets. A session that is not used again tells nothing."""
    polls = resting(*((NOW + 10 * i - 1, "ROLLBACK") for i in range(4)))
    assert not after(*polls[:3]).returns_to_pool(ORDERS)
    assert after(*polls).returns_to_pool(ORDERS)
    left = snapshot(session(1, IDLE, since=NOW + 39, query="ROLLBACK"), *_kept(range(2, 40)), at=NOW + 40)
    assert after(*polls, left).returns_to_pool(ORDERS)


def _kept(pids: Iterable[int]) -> list[Session]:
    return [session(pid, IDLE, since=NOW, query=READ) for pid in pids]


def test_a_client_that_leaves_its_statements_has_no_pool_with_resets() -> None:
    """pgx, node-postgres, Django and AUTOCOMMIT: a free session shows the application's statement."""
    polls = resting(*((NOW + 10 * i - 1, READ) for i in range(10)))
    history = after(*polls)
    assert not history.returns_to_pool(ORDERS)
    assert not history.is_held(session(1, IDLE, query=READ))


def test_an_idle_session_of_a_client_that_returns_them_is_held() -> None:
    """Unless its last statement was a reset, or it is meant to wait, like a listener or an elected leader."""
    history = after(*resting(*((NOW + 10 * i - 1, "ROLLBACK") for i in range(5))))
    assert history.is_held(session(1, IDLE, query=READ))
    assert not history.is_held(session(1, IDLE, query="COMMIT"))
    assert not history.is_held(session(1, IDLE, query=""))
    assert not history.is_held(session(1, IDLE, query="LISTEN jobs"))
    assert not history.is_held(session(1, IDLE, query="SELECT pg_try_advisory_lock(1)"))
    assert not history.is_held(session(1, ACTIVE, query=READ))
    assert history.is_held(session(1, HELD, query="COMMIT"))


def test_a_long_rest_that_ended_is_normal_for_as_long_as_it_is_recent() -> None:
    """A quiet night makes long rests normal only for a while."""
    history = after(*resting((NOW - 200, READ), (NOW + 9, READ), (NOW + 19, READ)))
    assert history.longest_rest(ORDERS, since=NOW) == 209
    assert history.longest_rest(ORDERS, since=NOW + 11) == 0


def test_a_blank_application_keeps_the_name_that_its_tags_gave() -> None:
    """A pool's reset carries no tags, but the session still belongs to the same client."""
    named, blank = Client("shop", "app", "tagged"), Client("shop", "app", "(none)")
    history = after(snapshot(session(1, client=named)), snapshot(session(1, client=blank), at=NOW + 10))
    assert {track.session.client for track in history.tracks.values()} == {named}
    other = snapshot(session(1, client=blank, born=NOW + 5), at=NOW + 20)
    assert {each.client for each in history.recognise(other).sessions} == {blank}


def test_a_session_that_is_hidden_for_a_while_has_not_moved() -> None:
    """If a privilege is revoked and granted again, the hold continues."""
    held = session(1, HELD, since=NOW - 60, query=READ)
    hidden = replace(held, state=None, state_change=None)
    history = after(snapshot(held), snapshot(hidden, at=NOW + 10), snapshot(held, at=NOW + 20))
    assert [track.moves for track in history.tracks.values()] == [0]
