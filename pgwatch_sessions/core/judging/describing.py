"""Describes a finding by the sessions it has after a poll: its place, rate and harm, and whether it is a leak."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pgwatch_sessions.core.findings import Finding, FindingKey, Harm, LeakKind, Recurrence
from pgwatch_sessions.core.history import Cohort, Track
from pgwatch_sessions.core.judging.blocking import harm_of, stopped_client
from pgwatch_sessions.core.judging.detection import SEVERAL, VARIOUS_SITES, Suspicion, held_since, longest_first
from pgwatch_sessions.core.judging.filling import filled_limit, full_pool
from pgwatch_sessions.core.judging.forecast import outlasting_part, rate_per_second, steady_rate
from pgwatch_sessions.core.judging.matching import common_limit, session_ids
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.judging.tracked_finding import TrackedFinding
from pgwatch_sessions.core.model import Session
from pgwatch_sessions.core.statements import Statement

#: A finding becomes a leak when it has looked like one for this part of the hold limit.
_CONFIRMED_AFTER = 0.4
#: A pause of this part of its limit does not end a leak.
_GRACE = 0.25
#: Growth has stopped if no session was opened for so many of its usual gaps. One is seen as soon as it is opened.
_SILENCE = 5.0


def described(tracked: TrackedFinding, suspicion: Suspicion | None, joined: int, context: PollContext) -> Finding:
    """Return the finding as its sessions are now; `joined` sessions are new."""
    before = tracked.finding
    held = sorted((context.history.tracks[identity] for identity in tracked.members), key=longest_first)
    sessions = tuple(each.shown for each in held)
    unseen_since = min((each.last_seen.at for each in held if each.last_seen), default=None)
    if unseen_since is not None:
        return replace(
            before,
            sessions=sessions,
            evidence=sessions,
            since=min(before.since, context.now),
            total=before.total + joined,
            harm=_harm(tracked, [each.session for each in held], context),
            unseen_since=unseen_since,
        )
    recurrence = _recurrence(before, context)
    harm = _harm(tracked, sessions, context)
    is_leak = _is_confirmed_leak(tracked, suspicion, harm, recurrence, context)
    key = _key(before, suspicion, tracked, sessions)
    return replace(
        before,
        key=key,
        write=before.write if before.total and key == before.key else _write_of(key, held),
        is_leak=is_leak,
        sessions=sessions,
        evidence=sessions or before.evidence,
        origins=tuple(sorted({session.client_addr for session in sessions if session.client_addr})) or before.origins,
        # If the server's clock is set back, the finding must not begin in the future.
        since=min(before.since, tracked.starts[0], context.now),
        total=before.total + joined,
        # What comes back reaches a level and stays there.
        rate_per_minute=60 * net_rate(tracked, context) if is_leak or recurrence is None else 0.0,
        harm=harm,
        configured_limit=common_limit(held, context.policy) if held else before.configured_limit,
        recurrence=recurrence,
        unseen_since=None,
    )


def _recurrence(finding: Finding, context: PollContext) -> Recurrence | None:
    if finding.key.kind is not LeakKind.TRANSACTION_HELD or finding.is_tool:
        return None
    return context.limits.recurrence(Cohort(finding.key.client, finding.key.site))


def net_rate(tracked: TrackedFinding, context: PollContext, *, steady: bool = False) -> float:
    """Return the holds per second that begin, less the part that will end by itself; see `steady_rate`."""
    seen_until, window = context.now - tracked.limit, context.policy.growth_window
    rate = rate_per_second(tracked.starts, now=seen_until, window=window, grace=_GRACE * tracked.limit)
    if rate and context.now - _last_opened(tracked.finding.key, context) > max(_SILENCE / rate, _GRACE * tracked.limit):
        return 0.0
    if steady and rate:
        rate = steady_rate(rate, tracked.starts, now=seen_until, window=window)
    if not rate or not tracked.ended:
        return rate
    held = [context.now - held_since(context.history.tracks[identity]) for identity in tracked.members]
    return rate * outlasting_part([each.seconds for each in tracked.ended], held)


def _last_opened(key: FindingKey, context: PollContext) -> float:
    """Return when growth last went on, so far as it can be seen before the limit: a session was opened.

    Whether a young hold will become a long one is not known, so of other kinds it may go on now.
    """
    if key.kind is not LeakKind.ORIGIN_GROWTH:
        return context.now
    return max((track.session.id.backend_start or 0.0 for track in context.tracks.get(key.client, ())), default=0.0)


def _harm(tracked: TrackedFinding, sessions: Sequence[Session], context: PollContext) -> Harm:
    harm, policy = harm_of(sessions, context.blocking), context.policy
    if not sessions:
        return harm
    client, history = tracked.finding.key.client, context.history
    all_sessions = (track.session for track in history.tracks.values())
    since = min((context.blocked[each.id].since for each in sessions if each.id in context.blocked), default=None)
    return replace(
        harm,
        blocked_seconds=context.now - since if since is not None and harm.blocked else 0.0,
        stopped=stopped_client(sessions, context.blocking, all_sessions) if harm.blocked else None,
        fills=filled_limit(client, sessions, context.slots, history, hold_limit=policy.hold_limit),
        own_pool=full_pool(context.tracks.get(client, ()), history, hold_limit=policy.hold_limit),
    )


def _key(
    before: Finding, suspicion: Suspicion | None, tracked: TrackedFinding, sessions: Sequence[Session]
) -> FindingKey:
    """Return the finding's key. It changes only when none of its sessions shows the old site any more."""
    if before.key.kind is LeakKind.TRANSACTION_KEPT:
        return before.key  # each poll shows other statements
    if suspicion is None or tracked.members.keys() - session_ids(suspicion):
        return before.key
    renamed = suspicion.key.kind is not before.key.kind or suspicion.key.site == VARIOUS_SITES
    if not renamed and any(session.statement.site == before.key.site for session in sessions):
        return before.key
    return suspicion.key


def _write_of(key: FindingKey, tracks: Iterable[Track]) -> Statement | None:
    """Return the write that names most of these sessions' place; None if none was seen, or if they have several."""
    writes = [write for each in tracks if (write := each.write)] if key.site != VARIOUS_SITES else []
    sites = [write.site for write in writes]
    return max(writes, key=lambda write: sites.count(write.site), default=None)


def _is_confirmed_leak(
    tracked: TrackedFinding,
    suspicion: Suspicion | None,
    harm: Harm,
    recurrence: Recurrence | None,
    context: PollContext,
) -> bool:
    if tracked.finding.is_leak and (recurrence is None or (suspicion is not None and suspicion.is_leak)):
        return True
    first_poll_at = context.history.first_poll_at
    if tracked.leak_since is None or first_poll_at is None or tracked.finding.is_tool:
        return False
    if suspicion is not None and _is_judged_at_once(suspicion, harm):
        return True
    watched_long_enough = context.now - first_poll_at >= context.policy.hold_limit
    return watched_long_enough and context.now - tracked.leak_since >= _CONFIRMED_AFTER * context.policy.hold_limit


def _is_judged_at_once(suspicion: Suspicion, harm: Harm) -> bool:
    """Return whether one poll is enough: the starts are visible in it, or what looks like a leak does harm now."""
    harmful = suspicion.is_leak and len(suspicion.tracks) >= SEVERAL and (harm.blocked > 0 or harm.fills is not None)
    return suspicion.is_plain or (harmful and suspicion.key.kind is LeakKind.TRANSACTION_HELD)
