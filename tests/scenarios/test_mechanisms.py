import pytest

from tests.scenarios.expected_failures import EXPECTED_TO_FAIL
from tests.scenarios.families import FAMILIES, draw_story
from tests.scenarios.judging import judge
from tests.scenarios.mechanisms import MECHANISMS
from tests.scenarios.playing import play
from tests.scenarios.running import Order, random_names, results
from tests.scenarios.story import Story, begin, polls
from tests.scenarios.verdicts import complaints

pytestmark = pytest.mark.slow


def parameter(story: Story) -> object:
    """Return a story as a parameter. One that is known to fail must fail: when it passes, its line is deleted."""
    reason = EXPECTED_TO_FAIL.get(story.name)
    marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
    return pytest.param(story, id=story.name, marks=marks)


@pytest.mark.parametrize("story", [parameter(story) for story in MECHANISMS])
def test_mechanism(story: Story) -> None:
    """Leaks are found in time, healthy clients are left alone, and verdicts and forecasts are right."""
    assert complaints(judge(play(story))) == ()


def test_known_failures_are_stories() -> None:
    """The list names no story that was renamed or deleted."""
    assert EXPECTED_TO_FAIL.keys() <= {story.name for story in MECHANISMS}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawn_story_can_be_drawn_again(family: str) -> None:
    """Its name says all that is needed. Another seed draws other values."""
    story = draw_story(family, "7.1")
    assert story.drawn
    assert story.drawn == draw_story(family, "7.1").drawn
    assert story.drawn != draw_story(family, "7.2").drawn
    assert next(polls(story, begin(story))).at >= story.watched_from


def test_random_stories_are_judged() -> None:
    """`--random` plays stories of all families in turn, in several processes."""
    names = [name for name in random_names(len(FAMILIES), 1) if name.startswith("cold start")]
    played = [each.judgement for each in results([Order(name=name) for name in names], jobs=2)]
    assert [each.name for each in played] == names
    assert [each.healthy for each in played] == [False, True]
