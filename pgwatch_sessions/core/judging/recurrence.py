"""Recognises long holds that come back: an external call, a stream or background work inside a transaction.

Each of them ends by itself, so no single one is a leak. But together they keep a part of the pool at all times, and the
next burst of requests finds it empty.
"""

from pgwatch_sessions.core.findings import Recurrence
from pgwatch_sessions.core.history import Cohort, History, LongHold
from pgwatch_sessions.core.judging.policy import Policy

#: Long holds recur if so many have ended that began at least one limit apart. Three may be the rounds of a batch.
_MIN_TIMES = 4
#: They must be spread over so many limits: a dependency that is slow for some minutes ends once.
_MIN_SPAN = 6.0
#: Together they must have held a session for so many limits: a few requests of a thousand may take long.
_MIN_HELD = 6.0
#: Holds count for so many growth windows: an hour.
_WINDOWS = 6.0
#: They are over after so many of their usual gaps.
_PAUSE = 3.0


def ended_lately(cohort: Cohort, history: History, policy: Policy) -> list[LongHold]:
    """Return the holds that were too long and ended within the last hour. None if they have a limit of their own."""
    if policy.hold_limits and policy.configured_limit(cohort.client, (cohort.site,)) is not None:
        return []
    since = (history.last_poll_at or 0.0) - _WINDOWS * policy.growth_window
    # Streams of 45 s take longer than a limit of 60 s now and then. What counts is how long they usually take.
    return [hold for hold in history.long_holds(cohort, since=since) if hold.seconds > policy.hold_limit * hold.holds]


def recurrence_of(cohort: Cohort, history: History, policy: Policy) -> Recurrence | None:
    """Return how long holds recur at a site now; None if they do not."""
    now, limit = history.last_poll_at or 0.0, policy.hold_limit
    holds = ended_lately(cohort, history, policy)
    if len(holds) < _MIN_TIMES:
        return None
    times = _times(holds, apart=limit)
    if len(times) < _MIN_TIMES or times[-1].began - times[0].began < _MIN_SPAN * limit:
        return None
    if sum(each.longest for each in times) < _MIN_HELD * limit:
        return None
    gap = (times[-1].began - times[0].began) / (len(times) - 1)
    if now - max(hold.ended_at for hold in holds) > max(policy.growth_window, _PAUSE * gap):
        return None
    lengths = [hold.longest for hold in holds]
    return Recurrence(sum(hold.holds for hold in holds), _WINDOWS * policy.growth_window, min(lengths), max(lengths))


def _times(holds: list[LongHold], *, apart: float) -> list[LongHold]:
    """Return the holds that began at least so many seconds after the one before."""
    times: list[LongHold] = []
    for hold in sorted(holds):
        if not times or hold.began - times[-1].began >= apart:
            times.append(hold)
    return times
