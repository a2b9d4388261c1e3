"""When polls are due, as values. `test_clock_jumps.py` has the daemon under a clock that is set."""

from datetime import datetime, timedelta

import pytest

from pgwatch_sessions.schedule import MONOTONIC, Every, now, spread

DUE = datetime(1970, 1, 2, tzinfo=MONOTONIC)


@pytest.mark.parametrize(
    ("late", "following", "missed"),
    [(0, 10, 0), (9.9, 10, 0), (10, 20, 1), (35, 40, 3), (10**9 + 1, 10**9 + 10, 10**8)],
)
def test_a_poll_that_is_late_is_followed_by_the_next_time_of_the_same_rhythm(
    late: float, following: float, missed: int
) -> None:
    """One poll makes up for all that were missed."""
    every, begun = Every(10), DUE + timedelta(seconds=late)
    assert every.missed(DUE, begun) == missed
    assert every.get_next_fire_time(DUE, begun) == DUE + timedelta(seconds=following)


def test_the_first_poll_is_due_at_once() -> None:
    """Nothing came before it."""
    assert Every(10).get_next_fire_time(None, DUE) == DUE


def test_the_time_of_the_schedule_goes_on() -> None:
    """It is a time that can be compared and subtracted."""
    assert timedelta(0) <= now() - now() + timedelta(seconds=1) <= timedelta(seconds=1)


@pytest.mark.parametrize(
    ("count", "interval", "step"), [(1, 10.0, 0.05), (4, 10.0, 0.05), (500, 10.0, 0.02), (4, 0.1, 0.025)]
)
def test_the_first_polls_are_spread_over_the_interval(count: int, interval: float, step: float) -> None:
    """The first one is due now, and a few servers do not wait for each other."""
    begun = now()
    first, *others = spread(count, interval)
    assert begun <= first <= now()
    assert [(each - first).total_seconds() for each in others] == pytest.approx([step * n for n in range(1, count)])
    assert all((each - first).total_seconds() < interval for each in others)


def test_without_a_server_there_is_no_poll() -> None:
    """Nothing is divided by zero."""
    assert list(spread(0, 10.0)) == []
