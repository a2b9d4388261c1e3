"""Finds transactions that are kept for long although their sessions are in use.

A thread that keeps its session from request to request may keep its transaction too: each statement is young, and the
transaction is old. A batch that works through one long transaction looks the same, but all its client's sessions do.
"""

from collections.abc import Iterator, Sequence

from pgwatch_sessions.core.findings import FindingKey, LeakKind
from pgwatch_sessions.core.history import OpenTransaction, Track
from pgwatch_sessions.core.judging.detection import MIN_SPREAD, SEVERAL, VARIOUS_SITES, Suspicion, held_since
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.model import Client

#: A transaction is kept once it has lasted this many hold limits, ...
_OLD = 5.0
#: ... its session has moved at least so often in it, ...
_MIN_MOVES = 5
#: ... and this part of the polls saw it idle: a transaction that works all the time is a batch.
_IDLE_PART = 0.8


def kept_transactions(context: PollContext) -> Iterator[Suspicion]:
    """Find sessions in use whose transaction is never ended, of clients whose other sessions end theirs."""
    now, history, policy = context.now, context.history, context.policy
    limit = _OLD * policy.hold_limit
    kept: dict[Client, list[tuple[float, Track]]] = {}
    for track in history.tracks.values():
        transaction = None if track.last_seen else track.transaction
        if transaction is not None and now - transaction.began > limit and _is_kept(transaction):
            kept.setdefault(track.session.client, []).append((transaction.began, track))
    if not kept:
        return
    ending = {track.session.client for track in history.tracks.values() if _ends_transactions(track, now - limit)}
    for client, candidates in kept.items():
        # What has not moved for longer than the hold limit is found as held.
        found = [each for each in candidates if now - (held_since(each[1]) or now) <= policy.hold_limit]
        if client not in ending or not found:
            continue
        found.sort(key=lambda each: (each[0], each[1].session.id.pid))
        starts, tracks = tuple(began for began, _ in found), tuple(track for _, track in found)
        yield Suspicion(
            key=FindingKey(client, LeakKind.TRANSACTION_KEPT, _site(tracks)),
            tracks=tracks,
            starts=starts,
            limit=limit,
            is_leak=len(found) >= SEVERAL and starts[-1] - starts[0] >= MIN_SPREAD * policy.hold_limit,
        )


def _is_kept(transaction: OpenTransaction) -> bool:
    return transaction.moves >= _MIN_MOVES and transaction.idle >= _IDLE_PART * transaction.polls


def _ends_transactions(track: Track, since: float) -> bool:
    """Return whether a session has done something since then, and is in no transaction from before."""
    began = track.transaction.began if track.transaction else None
    return (track.session.state_change or 0.0) > since and (began is None or began > since) and track.moves > 0


def _site(tracks: Sequence[Track]) -> str:
    sites = {track.session.statement.site for track in tracks}
    return sites.pop() if len(sites) == 1 else VARIOUS_SITES
