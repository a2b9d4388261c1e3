"""A cumulative histogram as a value."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of observations up to each bound; the last count, beyond every bound, belongs to +Inf."""

    bounds: tuple[float, ...]
    #: One more than bounds; not cumulative.
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
    """Return a histogram of these upper bounds that has seen nothing."""
    return Histogram(bounds=bounds, counts=(0,) * (len(bounds) + 1))
