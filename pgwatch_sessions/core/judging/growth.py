"""Finds origins that keep opening sessions and do not use the earlier ones again."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pgwatch_sessions.core.findings import FindingKey, LeakKind
from pgwatch_sessions.core.history import History, Origin, Span, Track
from pgwatch_sessions.core.judging.detection import (
    MIN_SPREAD,
    SEVERAL,
    UNKNOWN_SITE,
    Suspicion,
    held_since,
    longest_first,
)
from pgwatch_sessions.core.judging.hold_limits import NORMAL_FACTOR
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Client, Session, SessionState
from pgwatch_sessions.core.statements import StatementKind

#: An origin counts as growing from this number of sessions on that were passed over.
_MIN_PASSED_OVER = 4
#: The kinds of statement that an idle session shows once it was used.
_USED = frozenset({StatementKind.APPLICATION, StatementKind.RETURNED})
#: The first moments of a session, in seconds.
_FIRST_MOMENTS = 5.0
#: A session may become free this many seconds after another one was already opened.
_SAME_MOMENT = 1.0
#: If a limit is reached within this many windows at the present rate, growth is not watched first.
_URGENT = 4.0
#: Growth is looked for in this many windows.
_WINDOWS = 3.0
_RECORDS = 2
#: How many spans a low lasts until it tells what an origin needs. While a pool renews its sessions, there are fewer of
#: them for some minutes.
_LASTING = 3
#: The processes at one address have fewer pools than this, and a burst of requests opens sessions for fewer seconds.
_MANY = 16
_NO_BURST = 5
#: A client of which this part of the sessions was used only once has no pool.
_NEARLY_ALL = 0.9


def growing_origins(context: PollContext) -> Iterator[Suspicion]:
    """Find origins that keep opening sessions and do not use the earlier ones again.

    A pool takes a free session before it opens a new one, so a session that was passed over several times is lost. An
    origin may have several pools that each open their own sessions, but that ends, and they are used again. If a long
    rest of such a client ended, rests of up to twice its length are normal.
    """
    history, policy = context.history, context.policy
    resting = sum(
        track.session.state is SessionState.IDLE and context.now - held_since(track) > policy.hold_limit
        for track in history.tracks.values()
    )
    if resting < SEVERAL:
        return
    origins: dict[Origin, list[Track]] = {}
    for track in history.tracks.values():
        origins.setdefault(track.origin, []).append(track)
    lost = {origin: _lost(tracks, history, policy) for origin, tracks in origins.items()}
    growing = {origin.client for origin in _growing(origins, lost, context)}
    clients: dict[Client, list[Track]] = {}
    for origin, each in lost.items():
        clients.setdefault(origin.client, []).extend(each)
    for client, grown in clients.items():
        if len(grown) >= SEVERAL:
            grown.sort(key=longest_first)
            starts = tuple(map(held_since, grown))
            last_birth = max(map(_born, context.tracks[client]))
            yield Suspicion(
                key=FindingKey(client, LeakKind.ORIGIN_GROWTH, _most_frequent_site(grown)),
                tracks=tuple(grown),
                starts=starts,
                limit=_rest_limit(client, history, policy),
                is_leak=client in growing
                and len(grown) >= _MIN_PASSED_OVER
                and last_birth - starts[0] >= MIN_SPREAD * policy.hold_limit,
            )


def _growing(
    origins: Mapping[Origin, Sequence[Track]], lost: Mapping[Origin, Sequence[Track]], context: PollContext
) -> Iterator[Origin]:
    """Yield the origins that grow by the sessions that they lose."""
    history, policy = context.history, context.policy
    larger = {
        origin: each
        for origin, each in lost.items()
        if each and _is_larger(origin, len(origins[origin]), each, history)
    }
    urgent = [each.limit for each in context.slots if _is_urgent(each, larger, context)]
    for origin, each in lost.items():
        if len(each) >= SEVERAL and (
            (origin in larger and any(limit.applies_to(origin.client) for limit in urgent))
            or _uses_each_once(origin, origins[origin], history, policy)
            or _climbs(origin, each, history, policy)
        ):
            yield origin


def _lost(tracks: Sequence[Track], history: History, policy: Policy) -> list[Track]:
    """Return those of an origin's sessions that look lost."""
    now = history.last_poll_at or 0.0
    client = tracks[0].session.client
    limit = _rest_limit(client, history, policy)
    returns_to_pool = history.returns_to_pool(client)
    unused = [
        track
        for track in tracks
        if now - held_since(track) > limit
        and _was_used(track)
        and _is_unused(track, returns_to_pool=returns_to_pool)
        and not history.is_held(track.session)
    ]
    return _passed_over(unused, [track for track in tracks if _was_used(track)])


def _is_urgent(slots: SlotUsage, larger: Mapping[Origin, Sequence[Track]], context: PollContext) -> bool:
    """Return whether a limit would be reached before it is known whether origins that are `larger` go on growing."""
    lost = [track for origin, each in larger.items() if slots.limit.applies_to(origin.client) for track in each]
    if len(lost) < _MIN_PASSED_OVER:
        return False
    seconds = context.now - min(map(held_since, lost))
    free = max(0, slots.capacity - slots.used)
    return free * seconds < _URGENT * context.policy.growth_window * len(lost)


def _is_larger(origin: Origin, size: int, lost: Iterable[Track], history: History) -> bool:
    """Return whether an origin has grown since it lost its first session: a pool may only renew its sessions."""
    sizes, first = history.sizes.get(origin), min(map(held_since, lost))
    spans = [span for span in sizes.spans if span.begin <= first] if sizes else []
    return size - _level(spans[-_LASTING:]) >= _MIN_PASSED_OVER


def _level(spans: Sequence[Span]) -> int:
    """Return how many sessions an origin has for sure within some spans: while it renews them, they are fewer."""
    return max((span.least for span in spans), default=0)


def _uses_each_once(origin: Origin, tracks: Sequence[Track], history: History, policy: Policy) -> bool:
    """Return whether an origin uses nearly every session only right after it was opened, and still opens others.

    No pool does that. But in the first window of a process, each of a few may be the first session of another pool,
    which was needed once. Many that were opened one after the other, not in one burst, are too many for that.
    """
    once = sum(_was_used(track) and _was_used_once(track, policy) for track in tracks)
    if once < _MIN_PASSED_OVER or once < _NEARLY_ALL * len(tracks):
        return False
    now, births = history.last_poll_at or 0.0, list(map(_born, tracks))
    begin = now - _WINDOWS * policy.growth_window
    if once >= _MANY and _moments([born for born in births if born > begin], apart=_SAME_MOMENT) >= _NO_BURST:
        return True
    begin = max(begin, _settled_at(origin, history, policy))
    apart = MIN_SPREAD * policy.hold_limit
    return _moments([born for born in births if born > begin], apart=apart) >= SEVERAL


def _was_used_once(track: Track, policy: Policy) -> bool:
    """Return whether a session was used for a while after it was opened, which we saw, and never again."""
    return track.birth_seen and track.moves <= 1 and held_since(track) - _born(track) <= policy.hold_limit


def _settled_at(origin: Origin, history: History, policy: Policy) -> float:
    """Return until when all that an origin opens may be what it needs: a window after its first session."""
    sizes = history.sizes.get(origin)
    return (history.last_poll_at or 0.0) if sizes is None else sizes.first_seen_at + policy.growth_window


def _moments(times: Iterable[float], *, apart: float) -> int:
    """Return at how many moments, so many seconds apart, these were. One event opens sessions in several processes."""
    moments, last = 0, -math.inf
    for time in sorted(times):
        if time - last >= apart:
            moments, last = moments + 1, time
    return moments


def _born(track: Track) -> float:
    return track.session.id.backend_start or 0.0


def _was_used(track: Track) -> bool:
    """Return whether the application has used a session: `SELECT 1` is also sent when a connection is opened."""
    kind = track.session.statement.kind
    return kind in _USED or (kind is StatementKind.PROBED and not _is_young(track))


def _is_young(track: Track) -> bool:
    """Return whether a session entered its state right after it was opened, which we saw."""
    return track.birth_seen and held_since(track) - _born(track) <= _FIRST_MOMENTS


def _climbs(origin: Origin, lost: Sequence[Track], history: History, policy: Policy) -> bool:
    """Return whether an origin has more and more sessions, at its quietest moments too, and does not use them.

    Only what was lost before explains growth. What was opened together, in several processes, counts once.
    """
    sizes, now = history.sizes.get(origin), history.last_poll_at
    if sizes is None or now is None:
        return False
    settled_at = _settled_at(origin, history, policy)
    needed, settled = _needed(sizes.spans, settled_at)
    most, records = needed, []
    for span in settled:
        if span.least > most:
            records.append(span.begin)
            most = span.least
    if sum(begin > now - _WINDOWS * policy.growth_window for begin in records) < _RECORDS:
        return False
    losses = [since for track in lost if settled_at < (since := held_since(track)) <= records[-1]]
    return min(most - needed, _moments(losses, apart=MIN_SPREAD * policy.hold_limit)) >= _MIN_PASSED_OVER


def _needed(spans: Sequence[Span], settled_at: float) -> tuple[int, Sequence[Span]]:
    """Return how many sessions an origin needs, and the spans after it was known.

    What was opened within a window after its first session is what it needs: several pools, each opened when it was
    first needed. If it has closed some of them since, it needs no more than it had then.
    """
    needed = max((span.least for span in spans if span.begin < settled_at), default=spans[0].least)
    settled = [span for span in spans if span.begin >= settled_at]
    levels = [_level(settled[place : place + _LASTING]) for place in range(len(settled) - _LASTING + 1)]
    if levels and min(levels) < needed:
        return min(levels), settled[levels.index(min(levels)) :]
    return needed, settled


def _rest_limit(client: Client, history: History, policy: Policy) -> float:
    """Return how long a session of the client may rest: a lesson raises it to a window at most."""
    since = (history.last_poll_at or 0.0) - policy.growth_window
    learned = NORMAL_FACTOR * history.longest_rest(client, since=since)
    return max(policy.hold_limit, min(learned, policy.growth_window))


def _is_unused(track: Track, *, returns_to_pool: bool) -> bool:
    """Return whether an idle session may be lost.

    If the client returns its sessions to a pool, only one that was used once, right after it was opened. Sessions that
    such a client loses later keep the application's statement and are found by `held_connections`.
    """
    session = track.session
    return (
        session.state is SessionState.IDLE
        and session.state_change is not None
        and (not returns_to_pool or (track.moves <= 1 and track.birth_seen))
    )


def _passed_over(unused: Iterable[Track], tracks: Iterable[Track]) -> list[Track]:
    """Return the sessions that were unused while others were opened, if that happened several times in turn.

    A pool that went quiet before another pool at its address was opened has lost nothing: all of its rests began before
    all of the other's sessions were opened.
    """
    births = sorted(map(_born, tracks))
    turns = [(track, bisect_right(births, held_since(track) + _SAME_MOMENT)) for track in unused]
    passed_over = [(track, turn) for track, turn in turns if turn < len(births)]
    if len({turn for _, turn in passed_over}) < SEVERAL:
        return []
    return [track for track, _ in passed_over]


def _most_frequent_site(tracks: Sequence[Track]) -> str:
    sites = [_visible_site(track.session) for track in tracks]
    return max(sorted(set(sites)), key=sites.count)


def _visible_site(session: Session) -> str:
    return session.statement.site if session.statement.kind is StatementKind.APPLICATION else UNKNOWN_SITE
