"""Random durations, and request rates that change over time."""

from collections.abc import Callable
from random import Random

#: Returns random seconds.
Duration = Callable[[Random], float]
#: Returns requests per second at a time of the story.
Rate = Callable[[float], float]


def exactly(seconds: float) -> Duration:
    """Return a constant duration."""
    return lambda _: seconds


def between(least: float, most: float) -> Duration:
    """Return a uniformly distributed duration."""
    return lambda random: random.uniform(least, most)


def about(seconds: float) -> Duration:
    """Return a duration that scatters around the median by about a third, like ordinary work."""
    return lambda random: seconds * random.lognormvariate(0.0, 0.3)


def long_tailed(median: float, *, at_most: float = float("inf")) -> Duration:
    """Return a duration mostly near the median; one in a hundred is ten times as long, like external calls."""
    return lambda random: min(median * random.lognormvariate(0.0, 1.0), at_most)


def either(first: Duration, second: Duration, *, share: float) -> Duration:
    """Use the first distribution in this share of cases, otherwise the second."""
    return lambda random: first(random) if random.random() < share else second(random)


def steady(per_second: float) -> Rate:
    """Return a constant rate."""
    return lambda _: per_second


def changing(*steps: tuple[float, float]) -> Rate:
    """Return a rate that changes in steps (time, requests per second), in order; 0 before the first step."""

    def rate(time: float) -> float:
        return next((per_second for begin, per_second in reversed(steps) if time >= begin), 0.0)

    return rate


def rush(quiet: float, busy: float, *, begin: float, end: float) -> Rate:
    """Return a rate that is busy from begin to end, and quiet before and after."""
    return changing((0, quiet), (begin, busy), (end, quiet))


def then_silence(per_second: float, *, at: float) -> Rate:
    """Return a constant rate that becomes 0."""
    return changing((0, per_second), (at, 0))
