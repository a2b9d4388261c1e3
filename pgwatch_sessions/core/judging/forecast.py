"""Forecasts how fast the use of a limit grows and when the limit is reached."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from pgwatch_sessions.core.limits import LimitId, SlotUsage
from pgwatch_sessions.core.model import Client

#: Points kept of a window: enough for a slope, few enough to compare all pairs of them.
_MAX_POINTS = 40
_MIN_POINTS = 6
#: A trend must cover this part of the window.
_MIN_SPAN = 0.2
#: A rise counts from this value of Kendall's tau on, and from this number of connections on.
_MIN_TAU = 0.4
_MIN_RISE = 2.0
#: Use must also rise in this last part of the window. Otherwise the rise is over.
_LATE_PART = 0.25
#: If fewer starts lie in the window, the rate is judged by this many latest ones.
_MIN_STARTS = 6
#: A leak has stopped if it has paused for this many of its usual gaps between two starts.
_PAUSE = 3.0


class UsagePoint(NamedTuple):
    """How many connections counted against each limit at one poll."""

    at: float
    used: Mapping[LimitId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageHistory:
    """The use of each limit over the window, thinned out to at most 41 points."""

    points: tuple[UsagePoint, ...] = ()

    def add(self, at: float, slots: Iterable[SlotUsage], *, window: float) -> "UsageHistory":
        """Return the history with one more poll. It starts anew if the server's clock was set back."""
        point = UsagePoint(at, {each.limit: each.used for each in slots})
        if self.points and at <= self.points[-1].at:
            return self if at == self.points[-1].at else UsageHistory(points=(point,))
        kept = [old for old in self.points if old.at > at - window]
        if len(kept) >= 2 and at - kept[-2].at < window / _MAX_POINTS:
            kept.pop()  # replace the newest point, so that those before it keep their distance
        return UsageHistory(points=(*kept, point))

    def trend(self, limit: LimitId, *, window: float) -> float:
        """Return the growth in connections per second, 0 if there is no clear rise."""
        series = [(point.at, point.used[limit]) for point in self.points if limit in point.used]
        if len(series) < _MIN_POINTS or series[-1][0] - series[0][0] < _MIN_SPAN * window:
            return 0.0
        if series[-1][1] - series[0][1] < _MIN_RISE:
            return 0.0  # saves comparing all pairs
        pairs = [(b[0] - a[0], b[1] - a[1]) for i, a in enumerate(series) for b in series[i + 1 :]]
        slope = median(rise / run for run, rise in pairs)  # the Theil-Sen estimator
        tau = sum((rise > 0) - (rise < 0) for _, rise in pairs) / len(pairs)
        rise = slope * (series[-1][0] - series[0][0])
        late = [used for at, used in series if at >= series[-1][0] - _LATE_PART * window]
        goes_on = late[-1] > late[0] or len(late) == 1
        return slope if tau >= _MIN_TAU and rise >= _MIN_RISE and goes_on else 0.0


def forecast(
    slots: Iterable[SlotUsage], leaking: Mapping[Client, float], usage: UsageHistory, *, window: float
) -> Mapping[LimitId, float]:
    """Return the seconds until each limit is reached; infinite where use does not grow.

    `leaking` holds the connections per second that each client leaks. Where a leak counts against a limit, its rate is
    used instead of the trend: it is known sooner, and free of the noise of the traffic.
    """
    growth = {
        each.limit: sum(rate for client, rate in leaking.items() if each.limit.applies_to(client))
        or usage.trend(each.limit, window=window)
        for each in slots
    }
    return {each.limit: _seconds_until_full(each, growth[each.limit]) for each in slots}


def _seconds_until_full(slots: SlotUsage, growth: float) -> float:
    if slots.used >= slots.capacity:
        return 0.0
    return (slots.capacity - slots.used) / growth if growth > 0 else math.inf


def rate_per_second(starts: Sequence[float], *, now: float, window: float, grace: float) -> float:
    """Return how many holds begin per second at present, from the times, in order, when they began.

    `now` is the latest start that could be known by now. A pause of up to `grace` seconds does not end a leak.
    """
    recent = [start for start in starts if start > now - window]
    if len(recent) < _MIN_STARTS:
        recent = list(starts[-_MIN_STARTS:])
    if len(recent) < 2 or recent[-1] == recent[0]:
        return 0.0
    gap = (recent[-1] - recent[0]) / (len(recent) - 1)
    silence = now - recent[-1]
    return 1 / gap if silence <= max(_PAUSE * gap, grace) else 0.0
