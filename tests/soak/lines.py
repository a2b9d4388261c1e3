"""A straight line through samples: whether they rise."""

import itertools
import math
from collections.abc import Sequence
from statistics import fmean, linear_regression
from typing import NamedTuple

#: Samples that follow each other are alike, so that their number says little. Means of so many parts are used instead.
_PARTS = 20
#: A slope of this many standard errors is no accident: with 18 degrees of freedom one in a thousand is so large.
_ERRORS = 4.0


class Line(NamedTuple):
    """A line that was fitted."""

    #: Growth per unit of x.
    slope: float
    #: The standard error of the slope.
    error: float

    def rises(self, at_least: float = 0.0) -> bool:
        """Tell whether the slope is above zero by more than its error, and by this much."""
        return self.slope > max(_ERRORS * self.error, at_least)


def fitted(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit a line through the means of consecutive parts."""
    xs, ys = _means(x), _means(y)
    slope, intercept = linear_regression(xs, ys)
    middle = fmean(xs)
    residuals = sum((each - slope * at - intercept) ** 2 for at, each in zip(xs, ys, strict=True))
    spread = sum((at - middle) ** 2 for at in xs)
    return Line(slope, math.sqrt(residuals / (len(xs) - 2) / spread))


def _means(values: Sequence[float]) -> list[float]:
    edges = [len(values) * part // _PARTS for part in range(_PARTS + 1)]
    return [fmean(values[begin:end]) for begin, end in itertools.pairwise(edges)]
