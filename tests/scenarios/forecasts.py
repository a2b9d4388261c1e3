"""Compare the forecasts of exhaustion with when it came."""

import math
from collections.abc import Iterable, Iterator
from statistics import median
from typing import NamedTuple

from tests.scenarios.playing import Played, Seen

_TOLERANCE = 0.25
#: The part around half-way in which the forecast is judged, and seconds before exhaustion at which it is judged again.
_HALF_WAY = 0.05
_BEFORE = 600.0


class ForecastError(NamedTuple):
    """How wrong a forecast of exhaustion was."""

    #: Relative; infinite if there was none.
    error: float
    #: By how much chance moves the time: the error of a rate that is known from the sessions leaked before, and of the
    #: number of those that follow.
    chance: float

    @property
    def is_wrong(self) -> bool:
        """Whether it is wrong by more than chance explains."""
        return self.error > max(_TOLERANCE, 2 * self.chance)


class ForecastErrors(NamedTuple):
    """The errors of the forecast; None if it is not judged."""

    half_way: ForecastError | None = None
    #: Ten minutes before exhaustion.
    at_ten_minutes: ForecastError | None = None

    @property
    def judged(self) -> tuple[ForecastError, ...]:
        """Those that are judged."""
        return tuple(each for each in self if each is not None)


def forecast_errors(played: Played) -> ForecastErrors:
    """Compare the forecast with when the first limit was reached; empty if the story has nothing to forecast."""
    if not played.story.forecast or not played.ledger or not played.exhausted_at:
        return ForecastErrors()
    full, first = min(played.exhausted_at.values()), played.ledger[0].at
    half, near = (full + first) / 2, (full - first) * _HALF_WAY
    return ForecastErrors(
        half_way=_forecast_error(played, half, full, near=near),
        at_ten_minutes=_forecast_error(played, full - _BEFORE, full, near=near)
        if full - _BEFORE > half - near
        else None,
    )


def _forecast_error(played: Played, judged_at: float, full: float, *, near: float) -> ForecastError | None:
    """Return the median error of the polls that are `near` seconds from a time."""
    error = median_of(
        abs(_nearest(seen) - (full - seen.at)) / (full - seen.at)
        for seen in played.seen
        if abs(seen.at - judged_at) < near
    )
    if error is None:
        return None
    before = sum(entry.at < judged_at for entry in played.ledger)
    after = sum(judged_at <= entry.at < full for entry in played.ledger)
    return ForecastError(error, math.sqrt(1 / max(before, 1) + 1 / max(after, 1)))


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of those that are known; None if there are none."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _nearest(seen: Seen) -> float:
    return min(seen.exhaustion.values(), default=float("inf"))


def false_forecasts(played: Played) -> Iterator[float]:
    """Yield the polls that forecast exhaustion although nothing grows any more."""
    horizon = played.story.policy.horizon
    for seen in played.seen:
        if any(begin <= seen.at < end for begin, end in played.story.flat) and _nearest(seen) < horizon:
            yield seen.at
