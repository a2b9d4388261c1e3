"""The context of a poll, from what is remembered after it."""

from pgwatch_sessions.core.history import History
from pgwatch_sessions.core.judging.blocking import Blocking
from pgwatch_sessions.core.judging.forecast import UsageHistory
from pgwatch_sessions.core.judging.hold_limits import HoldLimits
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.poll_context import PollContext, tracks_by_client
from pgwatch_sessions.core.limits import SlotUsage


def context_of(history: History, policy: Policy, *, slots: tuple[SlotUsage, ...] = ()) -> PollContext:
    """Return the context of a poll after which this is remembered, and before which the same was."""
    assert history.last_poll_at is not None
    tracks = history.tracks.values()
    return PollContext(
        now=history.last_poll_at,
        history_before=history,
        history=history,
        blocking=Blocking([track.session for track in tracks]),
        slots=slots,
        usage=UsageHistory(),
        policy=policy,
        limits=HoldLimits(history, policy),
        tracks=tracks_by_client(tracks),
    )
