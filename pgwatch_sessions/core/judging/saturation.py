"""Recognises a pool that is too small: it looks full, busy and young, where a leak looks full, quiet and old."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter
from statistics import median
from typing import NamedTuple

from pgwatch_sessions.core.history import Track
from pgwatch_sessions.core.judging.detection import held_since
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, SessionState

#: A client becomes saturated if this part of its sessions is busy within one hold limit, on average, and the rest are
#: handed over from one request to the next: none of them rests for more than so many seconds while requests wait.
_BUSY_PART = 0.75
_HANDING_OVER = 2.0
#: The same from this part on if the pool would have grown if it could: the number of requests at once scatters around
#: its mean by the root of it, so it needs more sessions than that now and then.
_BUSY_OF_FEW = 0.65
#: It stays saturated while this part is busy within one hold limit, or within this number of them: load breathes.
_STILL_BUSY = 0.6
_MEMORY = 3.0
#: A pool is at full size while it has this part of its most sessions.
_FULL_SIZE = 0.9
_MIN_POLLS = 3
_MIN_SESSIONS = 2
#: Within one hold limit, this many transactions must begin for each busy session.
_TURNOVER = 0.5
#: Where most busy sessions are idle in transaction, this part of them must have begun another one since the last poll.
_TURNOVER_IDLE = 0.4
_BUSY_STATES = frozenset({SessionState.ACTIVE, *IDLE_IN_TRANSACTION_STATES})
_MAX_POLLS = 60


class Activity(NamedTuple):
    """How busy a client was at one poll."""

    at: float
    sessions: int
    #: Sessions that ran a statement or were in a transaction.
    busy: int
    #: Sessions that ran a statement.
    active: int
    #: Busy sessions that have begun another transaction since the poll before.
    turned_over: int
    #: The longest time, in seconds, for which any of the others had rested.
    rested: float = 0.0


_AT, _SESSIONS, _BUSY = attrgetter("at"), attrgetter("sessions"), attrgetter("busy")


def saturation(polls: Sequence[Activity], context: PollContext, *, is_saturated: bool) -> str:
    """Say how busy a pool is that is too small: its size stays the same, nearly all are busy and finish their work.

    Return an empty text if it is large enough. `is_saturated` is the verdict in effect: it stays for some minutes while
    the pool is still busy.
    """
    if not polls:
        return ""
    limit = context.policy.hold_limit
    latest = _until(polls, len(polls), limit)
    if not is_saturated:
        return _turnover(latest, context) if _is_at_its_limit(latest, polls) else ""
    if not any(_is_at_its_limit(_until(polls, end, limit), polls) for end in range(len(polls), _MIN_POLLS - 1, -1)):
        return ""
    return next((text for each in (latest, polls) if _is_busy(each) and (text := _turnover(each, context))), "")


def _until(polls: Sequence[Activity], end: int, seconds: float) -> Sequence[Activity]:
    """Return the polls of so many seconds up to the one before place `end`."""
    return polls[bisect_left(polls, polls[end - 1].at - seconds, key=_AT) : end]


def _is_busy(activity: Sequence[Activity]) -> bool:
    most, busy = max(map(_SESSIONS, activity), default=0), sum(map(_BUSY, activity))
    enough = most >= _MIN_SESSIONS and len(activity) >= _MIN_POLLS
    return enough and busy >= len(activity) * most * _FULL_SIZE * _STILL_BUSY


def _is_at_its_limit(activity: Sequence[Activity], known: Iterable[Activity]) -> bool:
    """Return whether a busy pool has its full size all the time, and would open more sessions if it could."""
    busy, sessions = sum(map(_BUSY, activity)), sum(map(_SESSIONS, activity))
    if len(activity) < _MIN_POLLS or busy < _BUSY_OF_FEW * sessions:
        return False
    most = max(map(_SESSIONS, known))
    full = sum(each.sessions >= _FULL_SIZE * most for each in activity)
    if most < _MIN_SESSIONS or full < _FULL_SIZE * len(activity):
        return False
    at_once = busy / len(activity)
    handed_over = busy >= _BUSY_PART * sessions and median(each.rested for each in activity) <= _HANDING_OVER
    return handed_over or at_once + math.sqrt(at_once) > most


def _turnover(activity: Sequence[Activity], context: PollContext) -> str:
    """Say how fast busy sessions finish their work; return an empty text if they do not."""
    limit, busy = context.policy.hold_limit, sum(each.busy for each in activity)
    minutes = max(limit, context.now - activity[0].at) / 60
    begun = sum(each.turned_over for each in activity)
    # Sessions that wait for their client in a transaction must end it sooner than those whose statements are slow.
    runs_statements = 2 * sum(each.active for each in activity) >= busy
    if begun < busy * (_TURNOVER / len(activity) * 60 * minutes / limit if runs_statements else _TURNOVER_IDLE):
        return ""
    most = max(each.sessions for each in activity)
    return (
        f"all of up to {most} sessions are busy and finish their work: on average {busy / len(activity):.1f} at a time,"
        f" at least {begun / minutes:.0f} transactions a minute; raise the pool or shorten the transactions"
    )


def activity_of(tracks: Sequence[Track], context: PollContext, *, ended: int) -> Activity:
    """Return how busy a client is at this poll; `ended` of its sessions have ended since the last one."""
    before = context.history_before.tracks
    busy = [track for track in tracks if track.session.state in _BUSY_STATES]
    earlier = [(before[track.session.id], track) for track in busy if track.session.id in before]
    # A batch that runs many statements in one transaction has not begun another one.
    begun = sum(old.session.xact_start != track.session.xact_start for old, track in earlier)
    active = sum(track.session.state is SessionState.ACTIVE for track in busy)
    rests = (context.now - held_since(track) for track in tracks if track.session.state is SessionState.IDLE)
    # Without a pool, each transaction has a session of its own, which ends with it.
    turned_over = begun + min(ended, len(busy) - len(earlier))
    return Activity(context.now, len(tracks), len(busy), active, turned_over, max((0.0, *rests)))


def with_latest(activity: tuple[Activity, ...], latest: Activity, context: PollContext) -> tuple[Activity, ...]:
    """Return the activity within the last hold limits with one more poll."""
    begin = bisect_left(activity, latest.at - _MEMORY * context.policy.hold_limit, key=_AT)
    end = bisect_left(activity, latest.at, key=_AT)  # the server's clock may have been set back
    return (*activity[max(begin, end - _MAX_POLLS) : end], latest)
