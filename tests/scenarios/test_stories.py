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
    """Name a story in pytest's output."""
    return f"{story.family}: {story.name}"


@pytest.mark.parametrize("story", LEAKS, ids=identity)
def test_leak_is_found(story: Story) -> None:
    """In time, by its client and site, with its rate, forecast and diagnosis; once; and nobody else is accused."""
    assert complaints(judge(play(story))) == ()


@pytest.mark.parametrize("story", HEALTHY, ids=identity)
def test_healthy_story_stays_quiet(story: Story) -> None:
    """No warning, and the right diagnosis."""
    assert complaints(judge(play(story))) == ()


def test_every_story_has_a_name_of_its_own() -> None:
    """Its chances come from its name, and people ask for it by that."""
    assert len(LEAKS) >= 25
    assert len(HEALTHY) >= 35
    assert len({story.name for story in STORIES}) == len(STORIES)
