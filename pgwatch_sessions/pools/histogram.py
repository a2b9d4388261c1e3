"""Counts durations in buckets, for Prometheus and OpenTelemetry."""

from bisect import bisect_right
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

#: Upper bounds in seconds. A wait takes milliseconds if all is well; a borrower that forgets to return takes minutes.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How many durations fell into each bucket of BOUNDS; the last count is of those above all bounds."""

    counts: tuple[int, ...]
    #: In seconds.
    sum: float

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)


class DurationCounts:
    """Adds up durations."""

    __slots__ = ("_counts", "_sum", "new")

    def __init__(self) -> None:
        #: Durations in seconds that are not counted yet. Any thread may append, and the garbage collector.
        self.new: deque[float] = deque()
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def count_new(self) -> list[float]:
        """Count the new durations, and return them. The caller holds a lock."""
        counted: list[float] = []
        with suppress(IndexError):  # until none is left
            while True:
                counted.append(self.new.popleft())
        counted.sort()
        total, below = sum(counted), 0
        for bucket, bound in enumerate(BOUNDS):
            number = bisect_right(counted, bound)
            self._counts[bucket] += number - below
            below = number
        self._counts[-1] += len(counted) - below
        self._sum += total
        return counted

    def read(self) -> Durations:
        """Return the counts so far."""
        return Durations(counts=tuple(self._counts), sum=self._sum)
