"""Decides when a finding without sessions closes."""

from pgwatch_sessions.core.findings import LeakKind, Severity
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.judging.tracked_finding import TrackedFinding
from pgwatch_sessions.core.model import Client

#: A leak without sessions stays open for this many hold limits: the application may have been restarted without a fix,
#: and its next leaked session is found one limit later.
_OPEN_WITHOUT_SESSIONS = 2.0
#: Holds that ended by themselves may come back: the finding waits this many times as long as the longest of them
#: lasted, for at least one growth window and at most this many.
_AWAITED_LENGTHS = 10.0
_AWAITED_WINDOWS = 6.0


def closes_at(tracked: TrackedFinding, context: PollContext) -> float | None:
    """Return when the finding closes unless another session is held before.

    None while it has sessions, and while sessions of its client are hidden: others may be held already.
    """
    finding, policy = tracked.finding, context.policy
    if tracked.empty_since is None or _is_hidden(finding.key.client, context):
        return None
    seconds = (_OPEN_WITHOUT_SESSIONS if finding.is_leak else 1.0) * policy.hold_limit
    longest = _AWAITED_WINDOWS * policy.growth_window
    if tracked.has_recurred:
        seconds = longest
    elif _may_come_back(tracked):
        seconds = min(max(_AWAITED_LENGTHS * tracked.longest_ended, policy.growth_window), longest)
    return tracked.empty_since + seconds


def _is_hidden(client: Client, context: PollContext) -> bool:
    return any(track.session.is_hidden for track in context.tracks.get(client, ()))


def _may_come_back(tracked: TrackedFinding) -> bool:
    """Return whether more holds may follow: all that there were have ended one by one."""
    finding = tracked.finding
    if finding.key.kind is not LeakKind.TRANSACTION_HELD:
        return False
    return len(tracked.ended) >= finding.total if finding.is_leak else finding.severity is Severity.NOTICE


def is_over(tracked: TrackedFinding, context: PollContext) -> bool:
    """Return whether the finding closes at this poll."""
    due = tracked.finding.closes_at
    return due is not None and context.now >= due
