import pytest

from tests.scenarios.healthy import HEALTHY
from tests.scenarios.judging import judge
from tests.scenarios.leaks import LEAKS
from tests.scenarios.playing import play
from tests.scenarios.stories import STORIES
from tests.scenarios.story import Story
from tests.scenarios.verdicts import complaints

pytestmark = pytest.mark.slow


def identity(story: Story) -> str:
    """Return the name of a story for pytest's output."""
    return f"{story.family}: {story.name}"


@pytest.mark.parametrize("story", LEAKS, ids=identity)
def test_leak_is_found(story: Story) -> None:
    """It is found once and in time, with the right client, site, rate, forecast and diagnosis; no other is accused."""
    assert complaints(judge(play(story))) == ()


@pytest.mark.parametrize("story", HEALTHY, ids=identity)
def test_healthy_story_has_no_warnings(story: Story) -> None:
    """There is no warning, and the diagnosis is right."""
    assert complaints(judge(play(story))) == ()


def test_story_names_are_unique() -> None:
    """A story's random numbers depend on its name, and people select stories by name."""
    assert len(LEAKS) >= 25
    assert len(HEALTHY) >= 35
    assert len({story.name for story in STORIES}) == len(STORIES)
