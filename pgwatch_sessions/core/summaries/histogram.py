"""A histogram as an immutable value."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many observations fell below each upper bound."""

    bounds: tuple[float, ...]
    #: Observations per bucket, not cumulative. One more than bounds: the last bucket is +Inf.
    counts: tuple[int, ...]
    sum: float = 0.0

    def observe(self, values: Iterable[float]) -> "Histogram":
        """Return the histogram with the values added."""
        counts = list(self.counts)
        total = self.sum
        for value in values:
            counts[bisect_left(self.bounds, value)] += 1
            total += value
        return Histogram(bounds=self.bounds, counts=tuple(counts), sum=total)


def empty_histogram(*bounds: float) -> Histogram:
    """Return a histogram with these upper bounds and no observation."""
    return Histogram(bounds=bounds, counts=(0,) * (len(bounds) + 1))
