"""Each row is one rule of detection: sessions as plain values, and what is suspected."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.history import (
    ClientHabits,
    History,
    Kill,
    OpenTransaction,
    Origin,
    OriginSizes,
    Span,
    Track,
)
from pgwatch_sessions.core.history.habits import LongestHold, LongRest
from pgwatch_sessions.core.judging.configured_limits import ConfiguredLimit
from pgwatch_sessions.core.judging.detection import (
    UNKNOWN_SITE,
    VARIOUS_SITES,
    Suspicion,
    is_leak,
)
from pgwatch_sessions.core.judging.detectors import detect
from pgwatch_sessions.core.judging.hold_limits import HoldLimits
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.limits import LimitId, SlotUsage
from pgwatch_sessions.core.model import Client, LimitScope, Session, SessionState
from tests.support.contexts import context_of
from tests.support.values import NOW, ORDERS, session

IDLE, HELD, ABORTED = SessionState.IDLE, SessionState.IDLE_IN_TRANSACTION, SessionState.ABORTED
ACTIVE = SessionState.ACTIVE
POLICY = Policy(hold_limit=60.0, growth_window=600.0)
CONFIGURED = (
    ConfiguredLimit(application="etl-*", limit=1800.0),
    ConfiguredLimit(site="/reports/*", limit=600.0),
    ConfiguredLimit(application="batch", site="SELECT o*", limit=5.0),
)
READ = "SELECT * FROM orders"
SITE = "SELECT orders"
SERVER = LimitId(LimitScope.SERVER, "db")
#: A client that returns its sessions to a pool, and one that leaves its statements on idle sessions.
RETURNS = ClientHabits(seen_at=NOW, returned=10)
LEAVES = ClientHabits(seen_at=NOW, left=10)


def tracks_of(*sessions: Session, moves: int = 5, birth_seen: bool = True) -> Sequence[Track]:
    """Return the tracks of these sessions, each of which has moved so often."""
    return [Track(each, birth_seen=birth_seen, moves=moves) for each in sessions]


def history_of(
    sessions: Sequence[Session], habits: ClientHabits | None = None, *, moves: int = 5, birth_seen: bool = True
) -> History:
    """Return what is remembered of these sessions, each of which has moved so often."""
    tracks = {each.session.id: each for each in tracks_of(*sessions, moves=moves, birth_seen=birth_seen)}
    return History(first_poll_at=NOW - 1000, last_poll_at=NOW, tracks=tracks, habits={ORDERS: habits} if habits else {})


def found_in(
    history: History, policy: Policy, *, free: int | None = None, limit: LimitId = SERVER
) -> tuple[Suspicion, ...]:
    """Return what is suspected at a poll after which this is remembered; `free` slots are left of a limit."""
    slots = () if free is None else (SlotUsage(limit.scope, limit.name, 1000, 1000 - free),)
    return detect(context_of(history, policy, slots=slots))


def sessions(
    state: SessionState, *ages: float, query: str = READ, born: Sequence[float] = (), client: Client = ORDERS
) -> list[Session]:
    """Return one session for each age: how many seconds ago it entered its state."""
    births = born or [1000.0] * len(ages)
    return [
        session(pid, state, since=NOW - age, born=NOW - birth, query=query, client=client)
        for pid, (age, birth) in enumerate(zip(ages, births, strict=True), start=1)
    ]


@pytest.mark.parametrize(
    ("ages", "limit", "expected"),
    [
        pytest.param([100, 80, 62], 60, True, id="three holds with starts 38 s apart are a leak"),
        pytest.param([70, 65, 62], 60, False, id="three holds with starts 8 s apart may be a batch"),
        pytest.param([185, 184, 183], 60, True, id="a batch that has lasted three limits is a leak"),
        pytest.param([179, 178, 177], 60, False, id="a batch just below three limits is not yet"),
        pytest.param([185, 120], 60, True, id="two holds one limit apart, the oldest three limits old, recur"),
        pytest.param([185, 130], 60, False, id="two holds less than a limit apart do not recur"),
        pytest.param([170, 100], 60, False, id="two holds that are younger than three limits do not recur yet"),
        pytest.param([10_000], 60, False, id="a single session is never a leak"),
        pytest.param([400, 380, 350], 600, False, id="with a limit of 600 s the same starts are together"),
    ],
)
def test_starts_and_lengths_tell_a_leak_from_a_batch(ages: list[float], limit: float, expected: bool) -> None:
    """Ages in seconds, oldest first."""
    assert is_leak([NOW - age for age in ages], now=NOW, limit=limit) is expected


@pytest.mark.parametrize(
    ("longest_ended", "kills", "limit"),
    [
        pytest.param(0.0, [], 60.0, id="nothing known: the hold limit"),
        pytest.param(20.0, [], 60.0, id="a short hold ended: the hold limit"),
        pytest.param(50.0, [], 100.0, id="a hold of 50 s ended: twice as long is normal"),
        pytest.param(0.0, [40.0, 40.0], 60.0, id="two kills do not make a time-out"),
        pytest.param(0.0, [40.0, 40.0, 44.0], 20.0, id="a time-out of 40 s: holds are seen from 20 s on"),
        pytest.param(500.0, [40.0, 40.0, 44.0], 20.0, id="the time-out counts, whatever ended before it"),
    ],
)
def test_how_long_a_hold_may_last(longest_ended: float, kills: list[float], limit: float) -> None:
    """From the longest hold that ended at the site, and from holds that the server killed there."""
    habits = ClientHabits(
        seen_at=NOW,
        longest_holds={SITE: LongestHold(NOW - 1000, longest_ended)},
        kills={SITE: tuple(Kill(NOW - 10, seconds) for seconds in kills)},
    )
    (track,) = tracks_of(session(state=HELD, query=READ))
    assert HoldLimits(history_of([], habits), POLICY).at(track).normal == limit


@pytest.mark.parametrize(
    ("application", "query", "limit"),
    [
        pytest.param("etl-7", READ, 1800.0, id="an application by its pattern, at every site"),
        pytest.param("etl-7", "SELECT 1 /*route='/reports/daily'*/", 1800.0, id="the first that matches counts"),
        pytest.param("web", "SELECT 1 /*route='/reports/daily'*/", 600.0, id="a site of every application"),
        pytest.param("batch", READ, 5.0, id="a limit may be shorter, whatever was learned"),
        pytest.param("batch", "SELECT * FROM invoices", 60.0, id="both patterns must match"),
        pytest.param("ETL-7", READ, 60.0, id="case matters"),
    ],
)
def test_the_configuration_sets_limits_of_applications_and_sites(application: str, query: str, limit: float) -> None:
    """They replace hold_limit, and what was learned: two holds of 50 s ended at this site."""
    client = Client("shop", "app", application)
    habits = ClientHabits(seen_at=NOW, longest_holds={SITE: LongestHold(NOW - 1000, 50.0)})
    learned = replace(history_of([]), habits={client: habits} if application == "batch" else {})
    (track,) = tracks_of(session(state=HELD, query=query, client=client))
    assert HoldLimits(learned, replace(POLICY, hold_limits=CONFIGURED)).at(track).normal == limit


def test_holds_within_their_configured_limit_are_not_suspected() -> None:
    """Beyond it, they are judged by it: starts 80 s apart are together if holds of 10 min are allowed."""
    policy = replace(POLICY, hold_limits=(ConfiguredLimit(site=SITE, limit=600.0),))
    assert found_in(history_of(sessions(HELD, 500, 300, 100)), policy) == ()
    (found,) = found_in(history_of(sessions(HELD, 700, 650, 620, 100)), policy)
    assert (len(found.tracks), found.limit, found.is_leak) == (3, 600.0, False)


HELD_ROWS: Mapping[str, tuple[list[Session], ClientHabits | None, list[tuple[object, ...]]]] = {
    "idle in transaction beyond the limit, starts spread": (
        sessions(HELD, 100, 80, 62), None, [(LeakKind.TRANSACTION_HELD, SITE, 3, True)],
    ),
    "an aborted transaction is held as well": (
        sessions(ABORTED, 100, 80, 62), None, [(LeakKind.TRANSACTION_HELD, SITE, 3, True)],
    ),
    "a single one is suspected, but is no leak": (
        sessions(HELD, 100), None, [(LeakKind.TRANSACTION_HELD, SITE, 1, False)],
    ),
    "below the limit nothing is suspected": (sessions(HELD, 59, 40, 10), None, []),
    "active sessions are not held, however old": (sessions(ACTIVE, 5000, 4000, 3000), None, []),
    "idle after an application statement, of a client that returns its sessions": (
        sessions(IDLE, 100, 80, 62), RETURNS, [(LeakKind.CONNECTION_HELD, SITE, 3, True)],
    ),
    "the same of a client that always leaves its statements": (sessions(IDLE, 100, 80, 62), LEAVES, []),
    "the same of a client that is not known yet": (sessions(IDLE, 100, 80, 62), None, []),
    "returned sessions may be of any age": (sessions(IDLE, 90_000, 80_000, 70_000, query="ROLLBACK"), RETURNS, []),
    "LISTEN waits by intent": (sessions(IDLE, 90_000, 80_000, 70_000, query="LISTEN jobs"), RETURNS, []),
    "sites with fewer than three sessions each are joined": (
        [
            *sessions(HELD, 100, query="SELECT * FROM a"),
            session(12, HELD, since=NOW - 80, query="SELECT * FROM b"),
            session(13, HELD, since=NOW - 62, query="SELECT * FROM c"),
        ],
        None,
        [(LeakKind.TRANSACTION_HELD, VARIOUS_SITES, 3, True)],
    ),
    "two sites are too few to join": (
        [*sessions(HELD, 100, query="SELECT * FROM a"), session(12, HELD, since=NOW - 80, query="SELECT * FROM b")],
        None,
        [(LeakKind.TRANSACTION_HELD, "SELECT a", 1, False), (LeakKind.TRANSACTION_HELD, "SELECT b", 1, False)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("own", "habits", "expected"), HELD_ROWS.values(), ids=HELD_ROWS)
def test_held_sessions(own: list[Session], habits: ClientHabits | None, expected: list[tuple[object, ...]]) -> None:
    """Kind, site, number of sessions, and whether it is a leak."""
    found = found_in(history_of(own, habits), POLICY)
    assert sorted((each.key.kind, each.key.site, len(each.tracks), each.is_leak) for each in found) == sorted(expected)


def test_a_whole_pool_that_is_held_is_a_leak_sooner() -> None:
    """All sessions of a client that was busy are held for 1.3 limits: together they are its pool, and it is gone."""
    held = sessions(HELD, 80, 80, 80)
    busy = ClientHabits(seen_at=NOW, returned=20)
    (all_held,) = found_in(history_of(held, busy), POLICY)
    (one_free,) = found_in(history_of([*held, session(9, IDLE, query="ROLLBACK")], busy), POLICY)
    (never_busy,) = found_in(history_of(held), POLICY)
    assert (all_held.is_leak, one_free.is_leak, never_busy.is_leak) == (True, False, False)


def test_holds_that_a_time_out_keeps_killing_are_a_leak() -> None:
    """Few exist at any time, but new ones have come for three limits. Without new ones it was a stall, and is over."""
    kills = tuple(Kill(NOW - ago, 40.0) for ago in (200, 150, 100))
    habits = ClientHabits(seen_at=NOW, kills={SITE: kills})
    (going_on,) = found_in(history_of(sessions(HELD, 25), habits), POLICY)
    assert going_on.is_leak
    stalled = ClientHabits(seen_at=NOW, kills={SITE: tuple(Kill(NOW - 5, 40.0) for _ in range(3))})
    (over,) = found_in(history_of(sessions(HELD, 25), stalled), POLICY)
    assert not over.is_leak


#: Idle for so long, opened so long ago (seconds).
GROWTH_ROWS: Mapping[str, tuple[list[float], list[float], bool]] = {
    "each new session leaves the one before it unused": (
        [500, 400, 300, 200, 100, 1], [510, 410, 310, 210, 110, 2], True,
    ),
    "all were opened before the first one rested": ([500, 499, 498, 497, 496, 495], [600] * 6, False),
    "only two turns: two pools that each opened their own": (
        [500, 500, 300, 300, 1, 1], [510, 510, 310, 310, 2, 2], False,
    ),
    "all were used within the hold limit": ([50, 40, 30, 20, 10, 1], [60, 50, 40, 30, 20, 2], False),
}  # fmt: skip


@pytest.mark.parametrize(("idle", "opened", "grows"), GROWTH_ROWS.values(), ids=GROWTH_ROWS)
def test_an_origin_that_opens_sessions_and_does_not_use_the_earlier_ones(
    idle: list[float], opened: list[float], grows: bool
) -> None:
    """Of a client that returns its sessions, a session used once after it was opened counts."""
    history = history_of(sessions(IDLE, *idle, query="ROLLBACK", born=opened), RETURNS, moves=1)
    found = [each for each in found_in(history, POLICY, free=10) if each.key.kind is LeakKind.ORIGIN_GROWTH]
    assert bool(found) is grows
    if grows:
        assert (found[0].key.site, found[0].is_leak) == (UNKNOWN_SITE, True)


def test_a_rest_that_ended_makes_long_rests_normal() -> None:
    """A session was used again after 400 s: rests of up to 800 s are normal."""
    idle = sessions(IDLE, 500, 400, 300, 200, 100, 1, query="ROLLBACK", born=[510, 410, 310, 210, 110, 2])
    rested = ClientHabits(seen_at=NOW, returned=10, long_rests=(LongRest(NOW - 20, 400.0),))
    assert found_in(history_of(idle, rested, moves=1), POLICY) == ()
    assert found_in(history_of(idle, RETURNS, moves=1), POLICY) != ()


def test_sessions_without_state_change_are_not_judged() -> None:
    """A recording that was made by hand may lack it."""
    unknown = [session(pid, HELD, state_change=None) for pid in range(3)]
    assert found_in(history_of(unknown), POLICY) == ()


def growing_by_steps(least: Sequence[int]) -> Mapping[Origin, OriginSizes]:
    """Return the sizes of an origin that had at least so many sessions in each quarter of a window until now."""
    first = NOW - 150.0 * len(least)
    spans = tuple(Span(first + 150 * i, number) for i, number in enumerate(least))
    return {Origin(ORDERS, session(1, IDLE).client_addr): OriginSizes(first, spans)}


@pytest.mark.parametrize(
    ("least", "is_leak"),
    [
        pytest.param([2] * 6 + [3, 4, 5, 6, 7], True, id="it climbs after its first window"),
        pytest.param([2, 4, 6, 8] + [8] * 7, False, id="it has what it needs after its first window"),
        pytest.param([2] * 6 + [8] * 5, False, id="one step is a pool that was needed later"),
        pytest.param([8] * 11, False, id="sessions replace each other"),
        pytest.param([9] * 6 + [3, 3, 4, 5, 6, 7, 8, 9], True, id="it fell to what it needs, and climbs from there"),
        pytest.param([9] * 6 + [3, 9, 9, 4, 6, 9, 9, 9], False, id="it renews its sessions within minutes"),
    ],
)
def test_growth_needs_growth(least: Sequence[int], is_leak: bool) -> None:
    """Sessions that are passed over while the origin's size stays the same are a notice."""
    idle = sessions(IDLE, 500, 400, 300, 200, 100, 1, born=[900, 410, 310, 210, 110, 2])
    history = replace(history_of(idle, LEAVES), sizes=growing_by_steps(least))
    (found,) = found_in(history, POLICY)
    assert (found.key.kind, found.is_leak) == (LeakKind.ORIGIN_GROWTH, is_leak)


@pytest.mark.parametrize(
    ("late", "since", "is_leak"),
    [
        pytest.param([500, 400, 300, 200], 0, True, id="each at another moment"),
        pytest.param(
            [304, 303, 302, 301], 0, False, id="together: an engine that four processes need for the first time"
        ),
        pytest.param([500, 400, 300, 200], 3, False, id="after it had stopped to grow"),
    ],
)
def test_what_did_not_make_an_origin_grow_is_no_growth(late: Sequence[float], since: int, is_leak: bool) -> None:
    """Its size stays the same `since` so many quarters of a window. Some sessions rest for longer."""
    rests = [1400, 1300, 1200, *late, 1]
    idle = sessions(IDLE, *rests, born=[rest + 1 for rest in rests])
    history = replace(history_of(idle, LEAVES), sizes=growing_by_steps([3] * 6 + [4, 5, 6, 7, 8] + [8] * since))
    (found,) = found_in(history, POLICY)
    assert (found.key.kind, found.is_leak) == (LeakKind.ORIGIN_GROWTH, is_leak)


@pytest.mark.parametrize(
    ("spans", "used_for", "is_leak"),
    [
        pytest.param(8, 1, True, id="for 20 min"),
        pytest.param(8, 30, True, id="for half a minute each"),
        pytest.param(8, 70, False, id="for longer than the hold limit each"),
        pytest.param(4, 1, False, id="in its first window: engines, each made when it was first needed"),
    ],
)
def test_a_process_that_uses_each_session_once(spans: int, used_for: float, is_leak: bool) -> None:
    """No pool does that, after its first window."""
    rests = [500, 400, 300, 200, 100, 1]
    idle = sessions(IDLE, *rests, born=[rest + used_for for rest in rests])
    history = replace(history_of(idle, LEAVES, moves=1), sizes=growing_by_steps([1] * spans))
    (found,) = found_in(history, POLICY)
    assert (found.key.kind, found.is_leak) == (LeakKind.ORIGIN_GROWTH, is_leak)


@pytest.mark.parametrize(
    ("number", "apart", "is_leak"),
    [
        pytest.param(18, 5, True, id="eighteen within 90 s: no process has so many pools"),
        pytest.param(14, 5, False, id="fourteen: several processes may have so many pools"),
        pytest.param(18, 0.15, False, id="a burst, after which the pools of several processes rest"),
    ],
)
def test_many_sessions_that_were_used_once_are_a_leak_in_the_first_window_too(
    number: int, apart: float, is_leak: bool
) -> None:
    """They were opened one after the other, each for a second of use. The last one is opened now."""
    rests = [*(300 - apart * i for i in range(number)), 1]
    idle = sessions(IDLE, *rests, born=[rest + 1 for rest in rests])
    history = replace(history_of(idle, LEAVES, moves=1), sizes=growing_by_steps([1] * 4))
    assert [each.is_leak for each in found_in(history, POLICY)] == [is_leak]


def test_a_full_server_is_not_urgent_while_nothing_grows() -> None:
    """A pool of a constant size on a server that is nearly full renews its sessions."""
    idle = sessions(IDLE, 500, 400, 300, 200, 100, 1, born=[900, 410, 310, 210, 110, 2])
    history = replace(history_of(idle, LEAVES), sizes=growing_by_steps([6] * 7 + [2, 6, 6, 6]))
    assert [each.is_leak for each in found_in(history, POLICY, free=20)] == [False]


@pytest.mark.parametrize(
    ("free", "limit", "is_leak"),
    [
        pytest.param(20, SERVER, True, id="the server has 20 free slots: at this rate they are gone within 40 minutes"),
        pytest.param(20, LimitId(LimitScope.DATABASE, ORDERS.database), True, id="its database"),
        pytest.param(20, LimitId(LimitScope.ROLE, ORDERS.user), True, id="its role"),
        pytest.param(20, LimitId(LimitScope.DATABASE, "another"), False, id="another database"),
        pytest.param(900, SERVER, False, id="the server has many"),
    ],
)
def test_growth_that_reaches_a_limit_soon_is_not_watched_first(free: int, limit: LimitId, is_leak: bool) -> None:
    """Nobody knows yet whether it goes on."""
    idle = sessions(IDLE, 500, 400, 300, 200, 100, 1, born=[900, 410, 310, 210, 110, 2])
    assert [each.is_leak for each in found_in(history_of(idle, LEAVES), POLICY, free=free, limit=limit)] == [is_leak]


@pytest.mark.parametrize(
    ("kept", "ending", "expected"),
    [
        pytest.param([900, 700, 400], True, [(3, True)], id="three threads keep their transactions"),
        pytest.param([900], True, [(1, False)], id="one is evidence"),
        pytest.param([900, 700, 400], False, [], id="a batch: no session of the client ends one"),
        pytest.param([200, 100, 50], True, [], id="they are not old yet"),
    ],
)
def test_transactions_that_are_kept_while_their_sessions_are_used(
    kept: Sequence[float], ending: bool, expected: Sequence[tuple[int, bool]]
) -> None:
    """Each session moved 2 s ago; what counts is when its transaction began."""
    history = history_of(sessions(HELD, *([2] * len(kept))))
    tracks = {
        identity: replace(track, transaction=OpenTransaction(NOW - age, polls=30, idle=28, moves=25))
        for (identity, track), age in zip(history.tracks.items(), kept, strict=True)
    }
    other = session(99, IDLE, since=NOW - 5, born=NOW - 1000, query="ROLLBACK")
    if ending:
        tracks[other.id] = Track(other, birth_seen=True, moves=5)
    found = found_in(replace(history, tracks=tracks), POLICY)
    assert [(len(each.tracks), each.is_leak) for each in found] == list(expected)
    assert {each.key.kind for each in found} <= {LeakKind.TRANSACTION_KEPT}
