"""Which sessions look leaked now: a tuple of detectors, each a function of the history.

A session that is held sits in a transaction, or keeps a connection that it should have handed back, and has not moved.
State age is what counts: never the transaction's age, nor how many are active. How long is too long depends on what the
same client did at the same site before: a hold that ended is normal, and so is twice its length.

Several sessions born together are a batch or a deploy and may still end; several whose holds began one after the other
are a leak. One alone is judged by its harm. Sessions lost by a vanished host look the same as leaked ones.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pgwatch_sessions.core.findings import FindingKey, Kind
from pgwatch_sessions.core.history import ClientMemory, Cohort, History, Origin, Track
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Session, SessionState
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.statements import Kind as StatementKind

#: Stands for the site where a client's statements vary too much to name one, or say nothing of where they come from.
VARIOUS = "(various)"
UNKNOWN_SITE = "(not shown)"

#: So many held sessions of one site are a case of their own.
SEVERAL = 3
#: Holds whose beginnings lie further apart than this part of the limit did not begin together.
_SPREAD = 0.25
#: So many limits long, holds that began together will not end together.
_LONG = 3.0
#: How much more than the longest hold that ended is still normal.
_MARGIN = 2.0
#: Two are recurring when so many limits lie between them.
_RECURRING = 1.0
#: Never-reused sessions that an origin must pile up before it counts as growing.
_PILE = 5
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


def held_since(track: Track, kind: Kind) -> float:
    """Return since when a session is lost to its pool: its state's age, or its birth where it was never reused."""
    session = track.session
    if kind is Kind.ORIGIN_GROWTH and session.id.backend_start is not None:
        return session.id.backend_start
    return session.state_change if session.state_change is not None else 0.0


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

    A pool takes a free session before it opens one. Of an origin with several pools, each may open its first; but those
    are used again, and there is an end to them.
    """
    unused: dict[Origin, list[Track]] = {}
    for track in history.tracks.values():
        if _lies_unused(track) and not history.is_held(track.session):
            unused.setdefault(track.origin, []).append(track)
    for origin, tracks in unused.items():
        grown = _born_beside_unused(tracks, history, policy)
        if len(grown) >= SEVERAL and not _comes_back(origin, len(grown), history, policy):
            starts = tuple(held_since(track, Kind.ORIGIN_GROWTH) for track in grown)
            spread_out = starts[-1] - starts[0] >= _SPREAD * policy.hold_limit
            yield Suspicion(
                key=FindingKey(origin.client, Kind.ORIGIN_GROWTH, _site_of(grown)),
                tracks=tuple(grown),
                starts=starts,
                limit=policy.hold_limit,
                is_leak=spread_out and len(grown) >= _PILE,
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
    kills = _recent_kills(history.clients.get(cohort.client), cohort.site, history, policy)
    if len(kills) >= SEVERAL:
        return min(limit, _KILL_SHARE * median(kills))
    return limit


def _recent_kills(memory: ClientMemory | None, site: str, history: History, policy: Policy) -> Sequence[float]:
    if memory is None or history.taken_at is None:
        return ()
    since = history.taken_at - policy.growth_window
    return [seconds for at, seconds in memory.killed.get(site, ()) if at >= since]


def _by_site(held: Iterable[Track], kind: Kind, history: History, policy: Policy) -> Iterator[Suspicion]:
    now = history.taken_at or 0.0
    cohorts: dict[Cohort, list[Track]] = {}
    limits: dict[Cohort, float] = {}
    for track in held:
        cohort = Cohort(track.session.client, track.session.statement.site)
        if cohort not in limits:
            limits[cohort] = limit_of(cohort, history, policy)
        if now - held_since(track, kind) > limits[cohort]:
            cohorts.setdefault(cohort, []).append(track)
    for cohort, tracks in _widened(cohorts).items():
        tracks.sort(key=lambda track: (held_since(track, kind), track.session.id.pid))
        starts = tuple(held_since(track, kind) for track in tracks)
        limit = limits.get(cohort, policy.hold_limit)
        yield Suspicion(
            key=FindingKey(cohort.client, kind, cohort.site),
            tracks=tuple(tracks),
            starts=starts,
            limit=limit,
            is_leak=_is_leak(starts, limit, now),
        )


def _is_leak(starts: Sequence[float], limit: float, now: float) -> bool:
    spread = starts[-1] - starts[0]
    oldest = now - starts[0]
    if len(starts) >= SEVERAL:
        return spread >= _SPREAD * limit or oldest >= _LONG * limit
    return len(starts) == SEVERAL - 1 and spread >= _RECURRING * limit and oldest >= _LONG * limit


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


def _lies_unused(track: Track) -> bool:
    session = track.session
    return (
        session.state is SessionState.IDLE
        and track.moves <= 1
        and track.birth_seen
        and session.statement.kind in _USED_ONCE
        and "advisory_lock" not in session.statement.text
    )


_USED_ONCE = frozenset({StatementKind.APPLICATION, StatementKind.PROBED, StatementKind.HANDED_BACK})


def _born_beside_unused(tracks: list[Track], history: History, policy: Policy) -> list[Track]:
    """Return those that lie unused for too long and were born, or first used, when another lay unused already."""
    now = history.taken_at or 0.0
    rested = sorted(
        (
            (track.session.state_change, track)
            for track in tracks
            if track.session.state_change is not None and now - track.session.state_change > policy.hold_limit
        ),
        key=lambda pair: (pair[0], pair[1].session.id.pid),
    )
    if not rested:
        return []
    first_rest = rested[0][0]
    grown = [track for _, track in rested if (track.session.id.backend_start or 0.0) > first_rest]
    grown.sort(key=lambda track: (held_since(track, Kind.ORIGIN_GROWTH), track.session.id.pid))
    return grown


def _comes_back(origin: Origin, grown: int, history: History, policy: Policy) -> bool:
    """Tell whether the origin uses its unused sessions again, if late."""
    memory = history.clients.get(origin.client)
    if memory is None or history.taken_at is None:
        return False
    since = history.taken_at - policy.growth_window
    revived = sum(at >= since for at in memory.revivals.get(origin.client_addr, ()))
    return 2 * revived >= grown


def _site_of(tracks: Sequence[Track]) -> str:
    """Return the site that most of the sessions show, if they show any."""
    shown = [_shown_site(track.session) for track in tracks]
    return max(sorted(set(shown)), key=shown.count)


def _shown_site(session: Session) -> str:
    return session.statement.site if session.statement.kind is StatementKind.APPLICATION else UNKNOWN_SITE
