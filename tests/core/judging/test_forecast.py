import math
from collections.abc import Mapping
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.judging.forecast import (
    UsageHistory,
    forecast,
    outlasting_part,
    rate_per_second,
    steady_rate,
)
from pgwatch_sessions.core.limits import LimitId, SlotUsage
from pgwatch_sessions.core.model import LimitScope
from tests.support.values import NOW, ORDERS

SERVER = LimitId(LimitScope.SERVER, "db")
WINDOW = 600.0


def usage(*used: int, every: float = 10.0) -> UsageHistory:
    """Return the usage after polls, `every` so many seconds, that saw this number of used slots."""
    after = UsageHistory()
    for i, count in enumerate(used):
        after = after.add(NOW + i * every, [SlotUsage(LimitScope.SERVER, "db", 100, count)], window=WINDOW)
    return after


TRENDS: Mapping[str, tuple[UsageHistory, float]] = {
    "one connection more every ten seconds": (usage(*range(10, 70)), 0.1),
    "the same with noise": (usage(*(10 + i + 4 * (i % 3 - 1) for i in range(60))), 0.1),
    "flat": (usage(*[20] * 60), 0.0),
    "up and down": (usage(*(20 + 5 * (i % 2) for i in range(60))), 0.0),
    "more noise than rise": (usage(*(20 + i // 15 + 20 * (i % 4) for i in range(60))), 0.0),
    "falling": (usage(*(60 - i // 2 for i in range(60))), 0.0),
    "a clear rise, but five polls": (usage(10, 20, 30, 40, 50, every=40), 0.0),
    "a clear rise, but over less than a fifth of the window": (usage(*range(10, 30, 2)), 0.0),
    "a step that is over: a deploy, a morning rush": (usage(*[20] * 30 + [40] * 30), 0.0),
    "a steep rise that levels off": (usage(*[20] * 30, *range(20, 60, 4), *(60 + i // 2 for i in range(20))), 0.0),
    "most of the rise in the last third": (usage(*[20] * 41, *range(20, 90, 14), *range(80, 94)), 0.0),
    "a rise by one connection": (usage(*(20 + (i > 40) for i in range(60))), 0.0),
}


@pytest.mark.parametrize(("history", "per_second"), TRENDS.values(), ids=TRENDS)
def test_the_trend_of_the_used_slots(history: UsageHistory, per_second: float) -> None:
    """Growth in connections per second; 0 unless the rise is clear."""
    assert history.trend(SERVER, window=WINDOW) == pytest.approx(per_second, rel=0.1)


def test_usage_is_thinned_but_keeps_its_ends() -> None:
    """Polls every 100 ms for ten minutes leave at most 42 points."""
    dense = usage(*[i // 100 for i in range(6000)], every=0.1)
    assert len(dense.points) <= 42
    assert dense.points[-1][0] == pytest.approx(NOW + 599.9)
    assert dense.trend(SERVER, window=WINDOW) == pytest.approx(0.1, rel=0.05)


def test_usage_starts_anew_when_the_clock_is_set_back() -> None:
    """Points that lie in the future are dropped."""
    stepped = usage(*range(30)).add(NOW - 3600, [SlotUsage(LimitScope.SERVER, "db", 100, 5)], window=WINDOW)
    assert [at for at, _ in stepped.points] == [NOW - 3600]


def test_the_rate_of_leaks_counts_more_than_the_trend() -> None:
    """Sixty connections per minute leak into 50 free slots: they are used up in 50 s."""
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


def test_a_limit_without_free_slots_is_reached_now() -> None:
    """Whether or not its use grows."""
    assert forecast([SlotUsage(LimitScope.SERVER, "db", 10, 10)], {}, UsageHistory(), window=WINDOW) == {SERVER: 0.0}


def rate(starts: list[float], now: float) -> float:
    """Return the rate per minute at the time `now`."""
    return 60 * rate_per_second(starts, now=now, window=WINDOW, grace=15.0)


RATES: Mapping[str, tuple[list[float], float, float]] = {
    "one start every five seconds": ([5.0 * i for i in range(20)], 100, 12),
    "one every twenty minutes: the window holds one, so the latest six count": (
        [1200.0 * i for i in range(4)], 3700, 0.05,
    ),
    "two close together do not make a slow leak fast": ([0, 1200, 2400, 3600, 3650], 3700, 60 / 912.5),
    "a pause of three usual gaps does not end it": ([10.0 * i for i in range(10)], 90 + 30, 6),
    "a longer pause does": ([10.0 * i for i in range(10)], 90 + 31, 0),
    "one start is no rate": ([0.0], 1, 0),
    "nor are several at the same instant": ([0.0] * 5, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize(("starts", "now", "per_minute"), RATES.values(), ids=RATES)
def test_the_rate_of_a_leak(starts: list[float], now: float, per_minute: float) -> None:
    """From the seconds at which its holds began."""
    assert rate([NOW + start for start in starts], NOW + now) == pytest.approx(per_minute)


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=50), st.floats(0, 1000))
def test_a_rate_is_never_negative_nor_infinite(gaps: list[float], later: float) -> None:
    """Whatever the starts."""
    starts = list(accumulate(gaps, initial=NOW))
    assert 0 <= rate(starts, starts[-1] + later) < 600.1


@pytest.mark.parametrize(
    ("ended", "held", "expected"),
    [
        pytest.param([], [100, 200], 1.0, id="none has ended"),
        pytest.param([300.0] * 9, [290, 200, 100], 0.1, id="streams of 5 min: all have ended at that age"),
        pytest.param([70.0] * 10, [*range(100, 1100, 100)], 0.52, id="half of them is collected early, half stays"),
        pytest.param([300.0], [310, 290], 2 / 3, id="the first one that ends does not decide alone"),
    ],
)
def test_holds_that_end_are_no_growth(ended: list[float], held: list[float], expected: float) -> None:
    """The lengths, in seconds, of the holds that ended and of those that did not tell how many will never end."""
    assert outlasting_part(ended, held) == pytest.approx(expected, abs=0.01)


def test_a_steady_leak_is_forecast_from_several_windows() -> None:
    """Chance makes the last window differ. A leak that became faster is forecast by its present rate."""
    steady = [60.0 * i for i in range(40)]
    assert steady_rate(12 / 600, steady, now=2400, window=600) == pytest.approx(1 / 60, rel=0.05)
    faster = [*steady[:30], *(1800 + 10.0 * i for i in range(60))]
    assert steady_rate(60 / 600, faster, now=2400, window=600) == 60 / 600


def test_slots_that_stand_still_do_not_keep_up_with_a_leak() -> None:
    """Its sessions come out of a pool that was open before."""
    rising, flat = UsageHistory(), UsageHistory()
    for seconds in range(0, 300, 10):
        rising = rising.add(seconds, [SlotUsage(LimitScope.SERVER, "db", 100, 10 + seconds // 60)], window=600)
        flat = flat.add(seconds, [SlotUsage(LimitScope.SERVER, "db", 100, 20)], window=600)
    limit = LimitId(LimitScope.SERVER, "db")
    assert rising.keeps_up(limit, 1 / 60, since=0, window=600)
    assert not flat.keeps_up(limit, 1 / 60, since=0, window=600)
    assert flat.keeps_up(limit, 1 / 60, since=280, window=600), "nothing is known yet"
