"""Which sessions look leaked now: a tuple of detectors, each a function of the history.

A session that is held sits in a transaction, or keeps a connection that it should have handed back, and has not moved.
State age is what counts: never the transaction's age, nor how many are active. How long is too long depends on what the
same client did at the same site before: a hold that ended is normal, and so is twice its length.

Several sessions born together are a batch or a deploy and may still end; several whose holds began one after the other
are a leak. One alone is judged by its harm. Sessions lost by a vanished host look the same as leaked ones.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pgwatch_sessions.core.findings import FindingKey, Kind
from pgwatch_sessions.core.history import Cohort, History, Origin, Track
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Session, SessionId, SessionState
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.statements import Kind as StatementKind

#: Stands for the site where a client's statements vary too much to name one, or say nothing of where they come from.
VARIOUS = "(various)"
UNKNOWN_SITE = "(not shown)"

#: So many held sessions of one site are a case of their own.
SEVERAL = 3
#: Holds whose beginnings lie further apart than this part of the limit did not begin together.
_SPREAD = 0.3
#: So many limits long, holds that began together will not end together.
_LONG = 3.0
#: The same where it is all that a client has, which was busy before: its pool is gone.
_LONG_FOR_ALL = 1.3
#: Rests after which a client counts as one that was busy.
_BUSY_RESTS = 20
#: How much more than the longest hold that ended is still normal.
_MARGIN = 2.0
#: Two are recurring when so many limits lie between them.
_RECURRING = 1.0
#: Never-reused sessions that an origin must pile up before it counts as growing.
_PILE = 4
#: What a session that was used shows when it is idle.
_USED = frozenset({StatementKind.APPLICATION, StatementKind.PROBED, StatementKind.HANDED_BACK})
#: Seconds within which a session may come free while another is opened already.
_SAME_MOMENT = 1.0
#: A hold that the server keeps killing after T seconds is seen from this part of T on.
_KILL_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Sessions that look leaked together, the longest held first."""

    key: FindingKey
    tracks: tuple[Track, ...]
    #: Since when each of them has been held.
    starts: tuple[float, ...]
    #: The limit, in seconds, that they are over.
    limit: float
    #: Whether the beginnings and lengths speak for a leak and not for a batch.
    is_leak: bool


def held_since(track: Track) -> float:
    """Return since when a session is lost to its pool."""
    return track.session.state_change if track.session.state_change is not None else 0.0


def longest_first(track: Track) -> tuple[float, int]:
    """Order tracks by the beginning of their holds."""
    return held_since(track), track.session.id.pid


def suspects(history: History, policy: Policy) -> tuple[Suspicion, ...]:
    """Ask every detector."""
    return tuple(suspicion for detect in DETECTORS for suspicion in detect(history, policy))


def transactions_held(history: History, policy: Policy) -> Iterator[Suspicion]:
    """Find sessions idle in transaction, aborted or not, for longer than is normal where they are."""
    held = (track for track in history.tracks.values() if track.session.state in IDLE_IN_TRANSACTION_STATES)
    yield from _by_site(held, Kind.TRANSACTION_HELD, history, policy)


def connections_held(history: History, policy: Policy) -> Iterator[Suspicion]:
    """Find idle sessions that were not handed back by a client that otherwise does."""
    held = (
        track
        for track in history.tracks.values()
        if track.session.state is SessionState.IDLE and history.is_held(track.session)
    )
    yield from _by_site(held, Kind.CONNECTION_HELD, history, policy)


def origins_growing(history: History, policy: Policy) -> Iterator[Suspicion]:
    """Find origins that open session after session and never come back to those that lie unused.

    A pool takes a free session before it opens one: those that were passed over are lost. Of an origin with several
    pools each may open its own, but there is an end to them, and they are used again: a rest that ended is normal.
    """
    now = history.taken_at or 0.0
    origins: dict[Origin, list[Track]] = {}
    for track in history.tracks.values():
        if track.session.statement.kind in _USED:
            origins.setdefault(track.origin, []).append(track)
    growing: dict[Client, list[Track]] = {}
    for origin, tracks in origins.items():
        limit = _rest_limit(origin.client, history, policy)
        hands_back = history.hands_back(origin.client)
        unused = [
            track
            for track in tracks
            if now - held_since(track) > limit
            and _lies_unused(track, hands_back)
            and not history.is_held(track.session)
        ]
        growing.setdefault(origin.client, []).extend(_passed_over(unused, tracks))
    for client, grown in growing.items():
        if len(grown) >= SEVERAL:
            grown.sort(key=longest_first)
            starts = tuple(map(held_since, grown))
            yield Suspicion(
                key=FindingKey(client, Kind.ORIGIN_GROWTH, _site_of(grown)),
                tracks=tuple(grown),
                starts=starts,
                limit=_rest_limit(client, history, policy),
                is_leak=len(grown) >= _PILE and starts[-1] - starts[0] >= _SPREAD * policy.hold_limit,
            )


#: Adding a detector adds a line.
DETECTORS: tuple[Callable[[History, Policy], Iterable[Suspicion]], ...] = (
    transactions_held,
    connections_held,
    origins_growing,
)


def limit_of(cohort: Cohort, history: History, policy: Policy) -> float:
    """Return how long a hold of the cohort may last."""
    limit = max(policy.hold_limit, _MARGIN * history.longest_ended(cohort))
    kills = _recent_kills(cohort, history, policy)
    if len(kills) >= SEVERAL:
        return min(limit, _KILL_SHARE * median(seconds for _, seconds in kills))
    return limit


def _recent_kills(cohort: Cohort, history: History, policy: Policy) -> Sequence[tuple[float, float]]:
    """Return when holds of the cohort were killed, and after how many seconds."""
    memory = history.clients.get(cohort.client)
    if memory is None or history.taken_at is None:
        return ()
    since = history.taken_at - policy.growth_window
    return [kill for kill in memory.killed.get(cohort.site, ()) if kill[0] >= since]


def _goes_on(starts: Sequence[float], limit: float, kills: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a time-out kills holds that never stop coming, so that few are there at any time.

    Those that a stalled dependency held up are killed as well, but then it is over.
    """
    return len(kills) >= SEVERAL and starts[-1] - min(at - seconds for at, seconds in kills) >= _LONG * limit


def _by_site(held: Iterable[Track], kind: Kind, history: History, policy: Policy) -> Iterator[Suspicion]:
    now = history.taken_at or 0.0
    cohorts: dict[Cohort, list[Track]] = {}
    limits: dict[Cohort, float] = {}
    for track in held:
        if track.session.state_change is None:
            continue  # a recording may not say since when
        cohort = _cohort_of(track)
        if cohort not in limits:
            limits[cohort] = limit_of(cohort, history, policy)
        if now - held_since(track) > limits[cohort]:
            cohorts.setdefault(cohort, []).append(track)
    over = {track.session.id for tracks in cohorts.values() for track in tracks}
    stuck = _stuck({cohort.client for cohort in cohorts}, over, history) if cohorts else ()
    for cohort, tracks in _widened(cohorts).items():
        tracks.sort(key=longest_first)
        starts = tuple(map(held_since, tracks))
        limit = limits.get(cohort) or max(limits[_cohort_of(track)] for track in tracks)
        yield Suspicion(
            key=FindingKey(cohort.client, kind, cohort.site),
            tracks=tuple(tracks),
            starts=starts,
            limit=limit,
            is_leak=_is_leak(starts, limit, now, long=_LONG_FOR_ALL if cohort.client in stuck else _LONG)
            or _goes_on(starts, limit, _recent_kills(cohort, history, policy)),
        )


def _cohort_of(track: Track) -> Cohort:
    return Cohort(track.session.client, track.session.statement.site)


def _is_leak(starts: Sequence[float], limit: float, now: float, *, long: float) -> bool:
    spread = starts[-1] - starts[0]
    oldest = now - starts[0]
    if len(starts) >= SEVERAL:
        return spread >= _SPREAD * limit or oldest >= long * limit
    return len(starts) == SEVERAL - 1 and spread >= _RECURRING * limit and oldest >= long * limit


def _stuck(clients: Collection[Client], held: Collection[SessionId], history: History) -> set[Client]:
    """Return the clients that were busy before, and all of whose sessions are held now."""
    moving = {track.session.client for identity, track in history.tracks.items() if identity not in held}
    return {client for client in clients if client not in moving and history.rests_of(client) >= _BUSY_RESTS}


def _widened(cohorts: Mapping[Cohort, list[Track]]) -> Mapping[Cohort, list[Track]]:
    """Put together the sites of a client that are each too few to tell: a leak whose statements vary."""
    few: dict[Client, list[Cohort]] = {}
    for cohort, tracks in cohorts.items():
        if len(tracks) < SEVERAL:
            few.setdefault(cohort.client, []).append(cohort)
    widened = dict(cohorts)
    for client, scattered in few.items():
        if len(scattered) >= SEVERAL:
            tracks = [track for cohort in scattered for track in widened.pop(cohort)]
            widened[Cohort(client, VARIOUS)] = tracks
    return widened


def _rest_limit(client: Client, history: History, policy: Policy) -> float:
    since = (history.taken_at or 0.0) - policy.growth_window
    return max(policy.hold_limit, _MARGIN * history.longest_rest(client, since=since))


def _lies_unused(track: Track, hands_back: bool) -> bool:  # one of two habits
    """Tell whether a session may be lost; where clients hand back, only one that was used once, right after birth.

    What such a client loses later keeps the application's statement, and is found as held.
    """
    session = track.session
    return (
        session.state is SessionState.IDLE
        and session.state_change is not None
        and (not hands_back or (track.moves <= 1 and track.birth_seen))
    )


def _passed_over(unused: Iterable[Track], tracks: Iterable[Track]) -> list[Track]:
    """Return those that lay unused when another was opened, if that happened several times in turn.

    A pool that fell quiet before another one at its address was opened lost nothing: all its rests precede all births.
    """
    births = sorted(track.session.id.backend_start or 0.0 for track in tracks)
    turns = [(track, bisect_right(births, held_since(track) + _SAME_MOMENT)) for track in unused]
    passed_over = [(track, turn) for track, turn in turns if turn < len(births)]
    if len({turn for _, turn in passed_over}) < SEVERAL:
        return []
    return [track for track, _ in passed_over]


def _site_of(tracks: Sequence[Track]) -> str:
    """Return the site that most of the sessions show, if they show any."""
    shown = [_shown_site(track.session) for track in tracks]
    return max(sorted(set(shown)), key=shown.count)


def _shown_site(session: Session) -> str:
    return session.statement.site if session.statement.kind is StatementKind.APPLICATION else UNKNOWN_SITE
