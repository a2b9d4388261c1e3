import random

import pytest

from tests.soak.lines import fitted

X = list(range(400))


def noise(seed: int, *, rise: float = 0.0) -> list[float]:
    """Return numbers around ten that are alike for a while, and may rise."""
    chance = random.Random(seed)
    drift, values = 0.0, []
    for x in X:
        drift = 0.8 * drift + chance.gauss(0, 1)
        values.append(10 + drift + rise * x)
    return values


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_rise_and_a_leak_does(seed: int) -> None:
    """One unit in fifty samples is found in noise of two units."""
    assert not fitted(X, noise(seed)).rises()
    assert fitted(X, noise(seed, rise=0.02)).rises()


def test_what_never_changes_does_not_rise() -> None:
    """A slope of zero with no error is zero."""
    assert fitted(X, [7.0] * len(X)) == (0, 0)
    assert not fitted(X, [7.0] * len(X)).rises()


def test_a_rise_below_the_least_that_counts_is_none() -> None:
    """However certain it is."""
    rising = fitted(X, [0.001 * x for x in X])
    assert rising.rises()
    assert not rising.rises(0.002)
