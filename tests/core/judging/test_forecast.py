import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.judging.forecast import UsageHistory, forecast, rate_per_second
from pgwatch_sessions.core.limits import LimitId, SlotUsage
from pgwatch_sessions.core.model import LimitScope
from tests.support.values import NOW, ORDERS

SERVER = LimitId(LimitScope.SERVER, "db")
WINDOW = 600.0


def usage(*used: int, every: float = 10.0) -> UsageHistory:
    """Return the usage after polls that saw so many slots used."""
    after = UsageHistory()
    for i, count in enumerate(used):
        after = after.add(NOW + i * every, [SlotUsage(LimitScope.SERVER, "db", 100, count)], window=WINDOW)
    return after


def test_a_steady_rise_is_a_trend() -> None:
    """One connection every ten seconds."""
    assert usage(*range(10, 70)).trend(SERVER, window=WINDOW) == pytest.approx(0.1)


def test_noise_on_a_rise_does_not_hide_it() -> None:
    """Half of the pairs may be anything."""
    noisy = [10 + i + 4 * (i % 3 - 1) for i in range(60)]
    assert usage(*noisy).trend(SERVER, window=WINDOW) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    "used",
    [
        pytest.param([20] * 60, id="flat"),
        pytest.param([20 + 5 * (i % 2) for i in range(60)], id="to and fro"),
        pytest.param([60 - i // 2 for i in range(60)], id="falling"),
        pytest.param([10, 20, 30, 40], id="too few polls"),
        pytest.param([20] * 30 + [40] * 30, id="a step that ended: a deploy, a rush"),
        pytest.param([20 + (i > 40) for i in range(60)], id="one more"),
    ],
)
def test_what_is_not_a_rise_is_no_trend(used: list[int]) -> None:
    """Nobody is told of an end that is not coming."""
    assert usage(*used).trend(SERVER, window=WINDOW) == 0.0


def test_usage_is_thinned_but_keeps_its_ends() -> None:
    """Polls every 100 ms for ten minutes are not 6,000 points."""
    dense = usage(*[i // 100 for i in range(6000)], every=0.1)
    assert len(dense.points) <= 42
    assert dense.points[-1][0] == pytest.approx(NOW + 599.9)
    assert dense.trend(SERVER, window=WINDOW) == pytest.approx(0.1, rel=0.05)


def test_a_clock_that_steps_back_begins_anew() -> None:
    """What was seen at times to come says nothing."""
    stepped = usage(*range(30)).add(NOW - 3600, [SlotUsage(LimitScope.SERVER, "db", 100, 5)], window=WINDOW)
    assert [at for at, _ in stepped.points] == [NOW - 3600]


def test_leaks_tell_sooner_and_better_than_the_trend() -> None:
    """Sixty connections a minute leaked into 50 free slots are 50 s."""
    slots = [
        SlotUsage(LimitScope.SERVER, "db", 100, 50),
        SlotUsage(LimitScope.ROLE, "app", 60, 50),
        SlotUsage(LimitScope.ROLE, "other", 60, 50),
    ]
    assert forecast(slots, {ORDERS: 1.0}, UsageHistory(), window=WINDOW) == {
        slots[0].limit: 50.0,
        slots[1].limit: 10.0,
        slots[2].limit: math.inf,
    }


def test_what_is_full_is_reached() -> None:
    """Growing or not."""
    assert forecast([SlotUsage(LimitScope.SERVER, "db", 10, 10)], {}, UsageHistory(), window=WINDOW) == {SERVER: 0.0}


def rate(starts: list[float], now: float) -> float:
    """Return the rate a minute at a time after these starts."""
    return 60 * rate_per_second(starts, now=now, window=WINDOW, grace=15.0)


def test_a_rate_is_that_of_the_starts() -> None:
    """Twelve a minute."""
    assert rate([NOW + 5 * i for i in range(20)], NOW + 100) == pytest.approx(12)


def test_a_slow_leak_has_a_rate_although_the_window_holds_one_start() -> None:
    """One every twenty minutes, judged by the latest few."""
    assert rate([NOW + 1200 * i for i in range(4)], NOW + 3700) == pytest.approx(0.05)


def test_a_leak_that_paused_for_long_has_stopped() -> None:
    """Three of its usual gaps, and a moment of grace, are no end yet."""
    starts = [NOW + 10 * i for i in range(10)]
    assert rate(starts, NOW + 90 + 30) == pytest.approx(6)
    assert rate(starts, NOW + 90 + 31) == 0


def test_one_start_is_no_rate() -> None:
    """Nor are several at the same instant."""
    assert rate([NOW], NOW + 1) == 0
    assert rate([NOW] * 5, NOW + 1) == 0


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=50), st.floats(0, 1000))
def test_a_rate_is_never_negative_nor_infinite(gaps: list[float], later: float) -> None:
    """Whatever the starts."""
    starts = list(accumulate(gaps, initial=NOW))
    assert 0 <= rate(starts, starts[-1] + later) < 600.1
