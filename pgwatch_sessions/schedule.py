"""When polls are due: on a clock that nobody can set, and once, however many were missed."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo

from apscheduler.triggers.base import BaseTrigger

_NO_TIME = timedelta(0)
#: The longest time between the first polls of two servers.
_STEP_SECONDS = 0.05


class MonotonicZone(tzinfo):
    """A time zone in which it is always `time.monotonic()` seconds after the beginning of 1970.

    APScheduler reads the clock only as `datetime.now(timezone)`. The time of day may jump: if it were set back by an
    hour, APScheduler would start nothing for an hour. In this zone no time jumps.
    """

    def fromutc(self, _: datetime) -> datetime:
        """Return the time now, whatever the time of day is."""
        return datetime(1970, 1, 1, tzinfo=self) + timedelta(seconds=time.monotonic())

    def utcoffset(self, _: datetime | None) -> timedelta:
        """Return zero: times of this zone are compared only with each other."""
        return _NO_TIME

    def dst(self, _: datetime | None) -> timedelta:
        """Return zero."""
        return _NO_TIME

    def tzname(self, _: datetime | None) -> str:
        """Return a name for logs."""
        return "monotonic"


#: The zone of every time that has to do with the schedule.
MONOTONIC = MonotonicZone()


def now() -> datetime:
    """Return the time by which polls are scheduled."""
    return datetime.now(MONOTONIC)


def spread(count: int, interval: float) -> Iterator[datetime]:
    """Yield the first times of so many polls: over the interval, and the next at most 50 ms after the one before.

    So 500 servers are not all polled, or connected to, at the same moment, and of a few servers none waits for long.
    """
    step = timedelta(seconds=min(interval / max(1, count), _STEP_SECONDS))
    begin = now()
    return (begin + number * step for number in range(count))


class Every(BaseTrigger):  # type: ignore[misc]  # APScheduler has no type hints
    """Due at every interval after the first time, at the next one that has not passed.

    APScheduler's own IntervalTrigger counts up the times that were missed: 2,600,000 and 180 MiB after a process with
    an interval of 1 s was stopped for a month.
    """

    def __init__(self, seconds: float) -> None:
        """Seconds between two polls."""
        self.interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the first time after `now` that is a whole number of intervals from the previous one."""
        if previous_fire_time is None:
            return now
        return previous_fire_time + self.missed(previous_fire_time, now) * self.interval + self.interval

    def missed(self, due: datetime, now: datetime) -> int:
        """Return how many further times have passed since one that was due."""
        return (now - due) // self.interval
