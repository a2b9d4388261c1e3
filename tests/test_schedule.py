"""When polls are due, as values. `test_clock_jumps.py` has the daemon under a clock that is set."""

from datetime import datetime, timedelta

import pytest

from pgwatch_sessions.schedule import MONOTONIC, Every, now

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
