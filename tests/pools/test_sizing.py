"""The size of a pool follows from the load, and stays under the limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.pools.sizing import size_for


@pytest.mark.parametrize(
    ("load", "size", "total"),
    [
        ((200, 0.025, 1, 97), 10, 10),
        ((200, 0.025, 4, 97), 4, 16),  # pools cannot lend to each other, so four small ones need more than one
        ((100, 0.25, 1, 97), 35, 35),
        ((2, 0.01, 4, 97), 2, 8),
        ((0, 0, 1, 1), 1, 1),
        ((1000, 0.25, 4, 97), 24, 96),  # the limit decides
    ],
)
def test_sizes(load: tuple[float, float, int, int], size: int, total: int) -> None:
    """Load, processes and limit decide; workers and buffers do not."""
    found = size_for(*load)
    assert (found.size, found.total) == (size, total)


def test_a_limit_that_is_too_low_is_told() -> None:
    """The size is what may be configured; the result says that it is not enough, and what would be."""
    found = size_for(rate=1000, hold=0.25, processes=4, limit=97)
    assert not found.is_enough
    assert (found.busy, found.needed, found.allowed) == (62.5, 79, 24)


@given(busy=st.floats(0.0, 500.0), processes=st.integers(1, 64))
def test_few_requests_wait(busy: float, processes: int) -> None:
    """If requests arrive independently, at most one in eight waits for a connection (Erlang's C formula)."""
    found = size_for(rate=busy * processes, hold=1.0, processes=processes, limit=1_000_000)
    assert found.is_enough
    assert share_that_waits(found.size, found.busy) <= 1 / 8


@given(st.floats(0.0, 10_000.0), st.floats(0.0, 60.0), st.integers(1, 100), st.integers(1, 1000))
def test_the_limit_is_never_exceeded(rate: float, hold: float, processes: int, limit: int) -> None:
    """Every process has at least one connection, and all together at most the limit."""
    if limit < processes:
        with pytest.raises(ValueError, match="start fewer processes"):
            size_for(rate, hold, processes, limit)
        return
    found = size_for(rate, hold, processes, limit)
    assert found.size >= 1
    assert found.total == processes * found.size <= limit
    assert found.is_enough == (found.size == found.needed)


@pytest.mark.parametrize(("rate", "hold", "processes"), [(-1, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_wrong_numbers(rate: float, hold: float, processes: int) -> None:
    """They are refused instead of making a size."""
    with pytest.raises(ValueError, match="rate and hold must be at least 0, and processes at least 1"):
        size_for(rate, hold, processes, 100)


def share_that_waits(size: int, busy: float) -> float:
    """Return Erlang's C: the share of requests that find every connection at work."""
    blocked = 1.0
    for number in range(1, size + 1):
        blocked = busy * blocked / (number + busy * blocked)
    return size * blocked / (size - busy * (1 - blocked))
