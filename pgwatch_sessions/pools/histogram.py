"""Counts durations in buckets, for Prometheus and OpenTelemetry."""

from bisect import bisect_left
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
    """Adds up durations. The caller holds a lock."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def read(self) -> Durations:
        """Return the counts so far."""
        return Durations(counts=tuple(self._counts), sum=self._sum)
