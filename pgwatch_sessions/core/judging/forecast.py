"""Forecasts how fast the use of a limit grows and when the limit is reached."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
#: Use must also rise in this last part of the window, by so much, and at least at this part of the mean speed of the
#: whole window. Otherwise the rise is over, or levels off.
_LATE_PART = 1 / 6
_MIN_LATE_RISE = 1.0
_MIN_LATE_SPEED = 0.5
#: The same of the last third and of the last sixth of the window, compared with the fastest: traffic that rose and
#: levels off still opens a session now and then, whenever there are more requests at once than ever before.
_MIN_LAST_PARTS = ((3, 0.5), (6, 0.25))
#: The slots grow with a leak if they do so by at least this part of its rate.
_KEEPS_UP = 0.5
#: If fewer starts lie in the window, the rate is judged by this many latest ones.
_MIN_STARTS = 16
#: A forecast looks back over so many windows if the rate has been the same all the time.
_STEADY_WINDOWS = (4, 3, 2)
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
        late = [point for point in series if point[0] >= series[-1][0] - _LATE_PART * window]
        now = _clear_rise(late if len(late) >= _MIN_POINTS else series[-_MIN_POINTS:], at_least=_MIN_LATE_RISE)
        mean = (series[-1][1] - series[0][1]) / (series[-1][0] - series[0][0])
        if now < _MIN_LATE_SPEED * mean or _levels_off(series):
            return 0.0
        return min(now, _clear_rise(series, at_least=_MIN_RISE))

    def keeps_up(self, limit: LimitId, rate: float, *, since: float, window: float) -> bool:
        """Return whether the use of a limit grows like a leak with this rate, in connections per second.

        A leak may take connections that its pool had open already. Without enough points since it began, it may grow.
        """
        begin = max(since, self.points[-1].at - window / 2) if self.points else since
        series = [(point.at, point.used[limit]) for point in self.points if limit in point.used and point.at >= begin]
        return len(series) < _MIN_POINTS or _theil_sen(_pairs(series)) >= _KEEPS_UP * rate


def _levels_off(series: Sequence[tuple[float, int]]) -> bool:
    """Return whether the series rose much more slowly in the last part of its time than in the fastest one."""
    begin, end = series[0][0], series[-1][0]
    for parts, least in _MIN_LAST_PARTS:
        places = [bisect_left(series, (begin + (end - begin) * i / parts, -1)) for i in range(parts)]
        marks = [*(series[place][1] for place in places), series[-1][1]]
        rises = [later - earlier for earlier, later in pairwise(marks)]
        if rises[-1] < least * max(rises):
            return True
    return False


def _pairs(series: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return the run and the rise between any two points."""
    return [(b[0] - a[0], b[1] - a[1]) for i, a in enumerate(series) for b in series[i + 1 :]]


def _theil_sen(pairs: Iterable[tuple[float, int]]) -> float:
    """Return the slope of a series, hardly moved by points that are far off."""
    return median(rise / run for run, rise in pairs)


def _clear_rise(series: Sequence[tuple[float, int]], *, at_least: float) -> float:
    """Return the slope of the series, 0 if it does not rise clearly."""
    if series[-1][1] - series[0][1] < at_least:
        return 0.0  # saves comparing all pairs
    pairs = _pairs(series)
    slope = _theil_sen(pairs)
    tau = sum((rise > 0) - (rise < 0) for _, rise in pairs) / len(pairs)
    return slope if tau >= _MIN_TAU and slope * (series[-1][0] - series[0][0]) >= at_least else 0.0


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


def outlasting_part(ended: Sequence[float], held: Sequence[float]) -> float:
    """Return the part of all holds that will outlast those that ended: the Kaplan-Meier estimator.

    `ended` are the lengths of the holds that ended, `held` the lengths up to now of those that did not. One more hold
    is assumed to be held at each length, so that the first one that ends does not decide alone.
    """
    lengths, part = sorted((*ended, *held)), 1.0
    for seconds, number in Counter(ended).items():
        at_risk = len(lengths) - bisect_left(lengths, seconds) + 1
        part *= 1 - number / at_risk
    return part


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


def steady_rate(rate: float, starts: Sequence[float], *, now: float, window: float) -> float:
    """Return the mean rate over several windows if the `rate` of the last one differs only by chance, else `rate`.

    Sixteen sessions that leaked at random times tell the rate to within a quarter, four times as many to an eighth.
    """
    for windows in _STEADY_WINDOWS:
        begin = now - windows * window
        if starts and starts[0] <= begin:
            mean = (len(starts) - bisect_left(starts, begin)) / (windows * window)
            if abs(rate - mean) * window <= math.sqrt(mean * window):
                return mean
    return rate
