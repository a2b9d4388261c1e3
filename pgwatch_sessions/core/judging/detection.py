"""Finds sessions that are held now for longer than is normal at their site.

A session is *held* when it sits in a transaction, or keeps a connection that it should have returned to its pool, and
has not moved. What counts is the age of the state, never the age of the transaction or the number of active sessions.
How long is too long depends on what the same client did at the same site before: if a hold of 50 s ended there, holds
of up to 100 s are normal. Where long holds come back again and again, they are not. The configuration may set another
limit.

Several sessions whose holds began together are a batch or a deploy, and may still end. Several whose holds began one
after the other are a leak. A single session is judged by its harm. Sessions of a host that vanished look like leaked
ones.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pgwatch_sessions.core.findings import FindingKey, LeakKind
from pgwatch_sessions.core.history import Cohort, History, Kill, Track
from pgwatch_sessions.core.judging.hold_limits import MIN_KILLS
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, SessionId, SessionState

#: The site of a finding whose statements vary too much to name one.
VARIOUS_SITES = "(various)"
#: The site of a finding whose statements do not show where they come from.
UNKNOWN_SITE = "(not shown)"

#: From this number on, the held sessions of one site are judged together.
SEVERAL = 3
#: Holds did not begin together if their starts are further apart than this part of the limit.
MIN_SPREAD = 0.3
#: One poll shows a leak if the starts are further apart than this and two have lasted longer than this, or if several
#: have, in limits. It is more than above, because holds that end are not seen in one poll.
_PLAIN_SPREAD = 2.0
_PLAINLY_LONG = 5.0
#: Holds that began together will not end together any more once they have lasted this many limits.
_LONG = 3.0
#: The same, if all sessions of a client that was busy before are held: its whole pool is gone.
_LONG_WHEN_ALL_HELD = 1.3
#: A client with this number of rests counts as one that was busy.
BUSY_RESTS = 20
#: Two holds recur if their starts are this many limits apart.
_RECURRING = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Sessions that look leaked together, the longest held first."""

    key: FindingKey
    tracks: tuple[Track, ...]
    #: When each of them began to be held.
    starts: tuple[float, ...]
    #: The limit that they are over, in seconds.
    limit: float
    #: Whether their starts and lengths speak for a leak rather than a batch.
    is_leak: bool
    #: Whether one poll is enough to call it a leak, without knowing what is normal here.
    is_plain: bool = False


def held_since(track: Track) -> float:
    """Return the server's time when the session began to be held; of a hidden one, as we last saw it."""
    return track.shown.state_change or 0.0


def longest_first(track: Track) -> tuple[float, int]:
    """Sort key: the longest held session first."""
    return held_since(track), track.session.id.pid


def held_transactions(context: PollContext) -> Iterator[Suspicion]:
    """Find sessions that are idle in transaction, aborted or not, for longer than is normal at their site."""
    tracks = context.history.tracks.values()
    held = (track for track in tracks if track.session.state in IDLE_IN_TRANSACTION_STATES)
    yield from _by_site(held, LeakKind.TRANSACTION_HELD, context)


def held_connections(context: PollContext) -> Iterator[Suspicion]:
    """Find idle sessions that were not returned to the pool, of a client that normally returns them."""
    history = context.history
    held = (
        track
        for track in history.tracks.values()
        if track.session.state is SessionState.IDLE and history.is_held(track.session)
    )
    yield from _by_site(held, LeakKind.CONNECTION_HELD, context)


def configured_limit_of(track: Track, policy: Policy) -> float | None:
    """Return the limit that the configuration sets where the session is held; None if it sets none."""
    return policy.configured_limit(track.session.client, track.sites) if policy.hold_limits else None


def _by_site(held: Iterable[Track], kind: LeakKind, context: PollContext) -> Iterator[Suspicion]:
    now, history, limits = context.now, context.history, context.limits
    blockers = {pid for track in history.tracks.values() for pid in track.session.blocked_by}
    cohorts: dict[Cohort, list[Track]] = {}
    for track in held:
        if track.session.state_change is None:
            continue  # a recording may lack it
        seconds = now - held_since(track)
        if seconds > limits.shortest and seconds > limits.at(track).of(track, blockers):
            cohorts.setdefault(track.cohort, []).append(track)
    over_limit = {track.session.id for tracks in cohorts.values() for track in tracks}
    stuck = _stuck_clients({cohort.client for cohort in cohorts}, over_limit, history) if cohorts else ()
    for cohort, tracks in _with_varying_sites_joined(cohorts).items():
        tracks.sort(key=longest_first)
        places = [limits.at(track) for track in tracks]
        normal, longest = max(each.normal for each in places), max(each.longest for each in places)
        starts = tuple(map(held_since, tracks))
        lost = [start for start in starts if now - start > longest]
        long = _LONG_WHEN_ALL_HELD if cohort.client in stuck else _LONG
        yield Suspicion(
            key=FindingKey(cohort.client, kind, cohort.site),
            tracks=tuple(tracks),
            starts=starts,
            limit=max(each.reported for each in places),
            is_leak=is_leak(lost, now=now, limit=normal, long=long)
            or _outlives_kills(starts, normal, limits.recent_kills(cohort)),
            is_plain=kind is LeakKind.TRANSACTION_HELD and _is_plain_leak(lost, now=now, limit=normal),
        )


def is_leak(starts: Sequence[float], *, now: float, limit: float, long: float = _LONG) -> bool:
    """Return whether holds that began at these times, in order, are a leak rather than a batch.

    `limit` is in seconds; holds that began together are a leak once the oldest has lasted `long` limits.
    """
    if len(starts) < SEVERAL - 1:
        return False
    spread = starts[-1] - starts[0]
    oldest = now - starts[0]
    if len(starts) >= SEVERAL:
        return spread >= MIN_SPREAD * limit or oldest >= long * limit
    return spread >= _RECURRING * limit and oldest >= long * limit


def _is_plain_leak(starts: Sequence[float], *, now: float, limit: float) -> bool:
    """Return whether holds that began at these times, in order, are a leak whatever is normal at their site."""
    long = [start for start in starts if now - start >= _PLAINLY_LONG * limit]
    apart = len(starts) >= SEVERAL and starts[-1] - starts[0] >= _PLAIN_SPREAD * limit
    return len(long) >= SEVERAL or (apart and len(long) >= SEVERAL - 1)


def _outlives_kills(starts: Sequence[float], limit: float, kills: Sequence[Kill]) -> bool:
    """Return whether new holds keep coming while a time-out keeps killing them, so that few exist at any time.

    Holds caused by a stalled dependency are killed as well, but then no new ones come.
    """
    return len(kills) >= MIN_KILLS and starts[-1] - min(kill.at - kill.seconds for kill in kills) >= _LONG * limit


def _stuck_clients(clients: Collection[Client], held: Collection[SessionId], history: History) -> set[Client]:
    """Return the clients that were busy before and have no session left that is not held."""
    moving = {track.session.client for identity, track in history.tracks.items() if identity not in held}
    return {client for client in clients if client not in moving and history.rest_count(client) >= BUSY_RESTS}


def _with_varying_sites_joined(cohorts: Mapping[Cohort, list[Track]]) -> Mapping[Cohort, list[Track]]:
    """Join the sites of a client that have few held sessions each: one leak may show many different statements."""
    small: dict[Client, list[Cohort]] = {}
    for cohort, tracks in cohorts.items():
        if len(tracks) < SEVERAL:
            small.setdefault(cohort.client, []).append(cohort)
    joined = dict(cohorts)
    for client, scattered in small.items():
        if len(scattered) >= SEVERAL:
            tracks = [track for cohort in scattered for track in joined.pop(cohort)]
            joined[Cohort(client, VARIOUS_SITES)] = tracks
    return joined
