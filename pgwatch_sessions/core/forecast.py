"""How fast something grows, and when a limit on connections is reached."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from pgwatch_sessions.core.model import Client, Scope

#: Points kept of a window: enough for a slope, few enough for all pairs of them.
_MAX_POINTS = 40
_MIN_POINTS = 6
#: A trend needs this part of the window to show.
_MIN_SPAN = 0.2
#: Kendall's tau from which a rise is one, and the rise in connections.
_MIN_TAU = 0.4
_MIN_RISE = 2.0
#: The last part of the window must show the rise as well, else it has ended.
_LATE = 0.25
#: Starts that a rate is judged by when fewer lie in the window.
_MIN_STARTS = 6
#: A leak that paused for so many of its usual gaps has stopped.
_PAUSE = 3.0


class Limit(NamedTuple):
    """What identifies a limit on connections."""

    scope: Scope
    name: str

    def concerns(self, client: Client) -> bool:
        """Tell whether the client's sessions count against it."""
        match self.scope:
            case Scope.SERVER:
                return True
            case Scope.ROLE:
                return client.user == self.name
            case Scope.DATABASE:
                return client.database == self.name


class Slots(NamedTuple):
    """A limit on connections and its use."""

    scope: Scope
    name: str
    capacity: int
    used: int

    @property
    def limit(self) -> Limit:
        """Which limit it is."""
        return Limit(self.scope, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The use of each limit over the window, thinned."""

    points: tuple[tuple[float, Mapping[Limit, int]], ...] = ()

    def add(self, at: float, slots: Iterable[Slots], *, window: float) -> "Usage":
        """Return the usage with a new look; a clock that stepped back begins anew."""
        point = (at, {each.limit: each.used for each in slots})
        if self.points and at <= self.points[-1][0]:
            return self if at == self.points[-1][0] else Usage(points=(point,))
        kept = [old for old in self.points if old[0] > at - window]
        if len(kept) >= 2 and at - kept[-2][0] < window / _MAX_POINTS:
            kept.pop()  # the newest point stays the newest; those before it keep their distance
        return Usage(points=(*kept, point))

    def trend(self, limit: Limit, *, window: float) -> float:
        """Return the growth in connections a second, 0 where there is no clear rise."""
        series = [(at, used[limit]) for at, used in self.points if limit in used]
        if len(series) < _MIN_POINTS or series[-1][0] - series[0][0] < _MIN_SPAN * window:
            return 0.0
        if series[-1][1] - series[0][1] < _MIN_RISE:
            return 0.0  # known without looking at all pairs
        pairs = [(b[0] - a[0], b[1] - a[1]) for i, a in enumerate(series) for b in series[i + 1 :]]
        slope = median(rise / run for run, rise in pairs)  # Theil-Sen
        tau = sum((rise > 0) - (rise < 0) for _, rise in pairs) / len(pairs)
        rise = slope * (series[-1][0] - series[0][0])
        late = [used for at, used in series if at >= series[-1][0] - _LATE * window]
        goes_on = late[-1] > late[0] or len(late) == 1
        return slope if tau >= _MIN_TAU and rise >= _MIN_RISE and goes_on else 0.0


def forecast(
    slots: Iterable[Slots], leaking: Mapping[Client, float], usage: Usage, *, window: float
) -> Mapping[Limit, float]:
    """Return the seconds until each limit is reached: by its leaks if there are any, else by its trend.

    `leaking` are the connections a second that each client leaks: known sooner, and free of the traffic's noise.
    """
    growth = {
        each.limit: sum(rate for client, rate in leaking.items() if each.limit.concerns(client))
        or usage.trend(each.limit, window=window)
        for each in slots
    }
    return {each.limit: _seconds_until_full(each, growth[each.limit]) for each in slots}


def _seconds_until_full(slots: Slots, growth: float) -> float:
    if slots.used >= slots.capacity:
        return 0.0
    return (slots.capacity - slots.used) / growth if growth > 0 else math.inf


def rate_per_second(starts: Sequence[float], *, now: float, window: float, grace: float) -> float:
    """Return how many holds begin a second at present, from the times, in order, when those known of began.

    `now` is the latest time at which a beginning could be known. A pause of `grace` seconds is no end.
    """
    recent = [start for start in starts if start > now - window]
    if len(recent) < _MIN_STARTS:
        recent = list(starts[-_MIN_STARTS:])
    if len(recent) < 2 or recent[-1] == recent[0]:
        return 0.0
    gap = (recent[-1] - recent[0]) / (len(recent) - 1)
    silence = now - recent[-1]
    return 1 / gap if silence <= max(_PAUSE * gap, grace) else 0.0
