"""Finds origins that keep opening sessions and do not use the earlier ones again."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from pgwatch_sessions.core.findings import FindingKey, LeakKind
from pgwatch_sessions.core.history import History, Origin, Track
from pgwatch_sessions.core.judging.detection import (
    MIN_SPREAD,
    NORMAL_FACTOR,
    SEVERAL,
    UNKNOWN_SITE,
    Suspicion,
    held_since,
    longest_first,
)
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, Session, SessionState
from pgwatch_sessions.core.statements import StatementKind

#: An origin counts as growing from this number of sessions on that were passed over.
_MIN_PASSED_OVER = 4
#: The kinds of statement that an idle session shows once it was used.
_USED = frozenset({StatementKind.APPLICATION, StatementKind.PROBED, StatementKind.RETURNED})
#: A session may become free this many seconds after another one was already opened.
_SAME_MOMENT = 1.0


def growing_origins(history: History, policy: Policy) -> Iterator[Suspicion]:
    """Find origins that keep opening sessions and do not use the earlier ones again.

    A pool takes a free session before it opens a new one, so a session that was passed over several times is lost. An
    origin may have several pools that each open their own sessions, but that ends, and they are used again. If a long
    rest of such a client ended, rests of up to twice its length are normal.
    """
    now = history.last_poll_at or 0.0
    origins: dict[Origin, list[Track]] = {}
    for track in history.tracks.values():
        if track.session.statement.kind in _USED:
            origins.setdefault(track.origin, []).append(track)
    growing: dict[Client, list[Track]] = {}
    for origin, tracks in origins.items():
        limit = _rest_limit(origin.client, history, policy)
        returns_to_pool = history.returns_to_pool(origin.client)
        unused = [
            track
            for track in tracks
            if now - held_since(track) > limit
            and _is_unused(track, returns_to_pool=returns_to_pool)
            and not history.is_held(track.session)
        ]
        growing.setdefault(origin.client, []).extend(_passed_over(unused, tracks))
    for client, grown in growing.items():
        if len(grown) >= SEVERAL:
            grown.sort(key=longest_first)
            starts = tuple(map(held_since, grown))
            yield Suspicion(
                key=FindingKey(client, LeakKind.ORIGIN_GROWTH, _most_frequent_site(grown)),
                tracks=tuple(grown),
                starts=starts,
                limit=_rest_limit(client, history, policy),
                is_leak=len(grown) >= _MIN_PASSED_OVER and starts[-1] - starts[0] >= MIN_SPREAD * policy.hold_limit,
            )


def _rest_limit(client: Client, history: History, policy: Policy) -> float:
    since = (history.last_poll_at or 0.0) - policy.growth_window
    return max(policy.hold_limit, NORMAL_FACTOR * history.longest_rest(client, since=since))


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
    births = sorted(track.session.id.backend_start or 0.0 for track in tracks)
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
