from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.top.trends import NO_TRENDS, WINDOW, remember, sparkline
from pgwatch_sessions.top.view import View
from tests.support.states import END, REFUSED, leaking
from tests.top.views import view


def at(seconds: float, shown: View) -> View:
    """Return the view as of a later poll."""
    return replace(shown, servers=tuple(replace(each, polled_at=END + seconds) for each in shown.servers))


def test_the_highest_bar_is_the_highest_number_and_the_newest_is_on_the_right() -> None:
    """What was before the first poll is blank."""
    assert sparkline([(0.0, 1), (150.0, 4), (299.0, 8)], columns=3) == "▂▅█"
    assert sparkline([(299.0, 8)], columns=3) == "  █"
    assert sparkline([], columns=3) == "   "
    assert sparkline([(0.0, 0), (299.0, 0)], columns=2) == "▁▁"


def test_an_unknown_number_is_no_zero() -> None:
    """While states are hidden, the bars are blank."""
    assert sparkline([(299.0, None)], columns=3) == "   "


@given(
    st.lists(st.tuples(st.floats(0, 2 * WINDOW), st.none() | st.integers(0, 10**6)), max_size=50).map(
        lambda samples: sorted(samples, key=lambda sample: sample[0])
    ),
    st.integers(1, 60),
)
def test_a_sparkline_always_fits(samples: list[tuple[float, int | None]], columns: int) -> None:
    """It has exactly as many characters as columns."""
    assert len(sparkline(samples, columns=columns)) == columns


def test_samples_are_remembered_for_five_minutes() -> None:
    """The same poll is remembered once, however often it is shown."""
    shown, trends = view(leaking()), NO_TRENDS
    for seconds in (0, 0, 10, 200, 200, 310):
        trends = remember(trends, at(seconds, shown))
    assert {tuple(sample.at - END for sample in samples) for samples in trends.values()} == {(200.0, 310.0)}


def test_clients_that_are_gone_are_forgotten() -> None:
    """Otherwise memory would grow with every new client."""
    trends = remember(NO_TRENDS, view(leaking()))
    assert remember(trends, replace(view(leaking()), servers=())) == {}


def test_an_outage_keeps_what_was_before() -> None:
    """One failed poll does not empty the bars."""
    trends = remember(NO_TRENDS, view(leaking()))
    assert remember(trends, view(leaking(REFUSED))) == trends != {}


def test_a_clock_that_is_set_back_starts_the_samples_again() -> None:
    """Samples with later times are dropped. They would never be old enough to be dropped otherwise."""
    shown = view(leaking())
    trends = remember(remember(NO_TRENDS, shown), at(-1000, shown))
    assert {tuple(sample.at - END for sample in samples) for samples in trends.values()} == {(-1000.0,)}
