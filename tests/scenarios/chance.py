"""Durations and request rates, as functions of chance and of time."""

from collections.abc import Callable
from random import Random

#: Draws seconds.
Duration = Callable[[Random], float]
#: Requests a second at a time of the story.
Rate = Callable[[float], float]


def exactly(seconds: float) -> Duration:
    """Draw always the same."""
    return lambda _: seconds


def between(least: float, most: float) -> Duration:
    """Anything in the range, equally likely."""
    return lambda random: random.uniform(least, most)


def about(seconds: float) -> Duration:
    """Scatter around the median by a third up or down, as ordinary work does."""
    return lambda random: seconds * random.lognormvariate(0.0, 0.3)


def long_tailed(median: float, *, at_most: float = float("inf")) -> Duration:
    """Mostly near the median, one in a hundred ten times as long, as calls to other services do."""
    return lambda random: min(median * random.lognormvariate(0.0, 1.0), at_most)


def either(first: Duration, second: Duration, *, share: float) -> Duration:
    """Draw from the first in this share of the cases, else from the second."""
    return lambda random: first(random) if random.random() < share else second(random)


def steady(per_second: float) -> Rate:
    """Return the same rate all the time."""
    return lambda _: per_second


def changing(*steps: tuple[float, float]) -> Rate:
    """Take (from when, requests a second), in the order of time; nothing before the first."""

    def rate(time: float) -> float:
        return next((per_second for begin, per_second in reversed(steps) if time >= begin), 0.0)

    return rate


def rush(quiet: float, busy: float, *, begin: float, end: float) -> Rate:
    """Be busy from begin to end, quiet before and after."""
    return changing((0, quiet), (begin, busy), (end, quiet))


def then_silence(per_second: float, *, at: float) -> Rate:
    """Be steady, and stop."""
    return changing((0, per_second), (at, 0))
