"""All families of random stories. A family draws the parameters of one story; its caller names the story.

The name is the seed of what happens in the story.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from pgwatch_sessions.core.model import FailureReason
from tests.scenarios import family_holds, family_pools, family_verdicts
from tests.scenarios.draws import Draws
from tests.scenarios.story import Story

#: To add a family, add a line.
FAMILIES: Mapping[str, Callable[[Draws], Story]] = {
    "holds that come back": family_holds.holds_that_come_back,
    "one hold an hour": family_holds.holds_once_an_hour,
    "holds beside a leak": family_holds.holds_beside_a_leak,
    "nightly batch": family_holds.nightly_batch,
    "batch in one transaction": family_holds.batch_in_one_transaction,
    "transaction kept by a thread": family_holds.thread_keeps_transaction,
    "level of streams": family_holds.streams_reach_a_level,
    "holds that began together": family_holds.holds_that_began_together,
    "set up and never used": family_pools.set_up_and_never_used,
    "pools without a reset": family_pools.pools_at_rest,
    "leaks without a reset": family_pools.leaks_without_reset,
    "connections never closed": family_pools.connections_never_closed,
    "engines made when needed": family_pools.engines_made_when_needed,
    "garbage collected": family_pools.collected_in_time,
    "one session blocks": family_verdicts.one_session_blocks,
    "leak blocks its own client": family_verdicts.leak_blocks_its_own_client,
    "pool too small": family_verdicts.pool_too_small,
    "maintenance": family_verdicts.maintenance,
    "cold start": family_verdicts.cold_start,
    "cold start, nothing leaks": family_verdicts.cold_start_among_healthy,
    "leak that stops": family_verdicts.leak_that_stops,
    "leak to the end": family_verdicts.leak_to_the_end,
}


def draw_story(family: str, seed: str) -> Story:
    """Draw a story of a family. The seed becomes a part of its name, and the same seed draws the same story."""
    name = f"{family} {seed}"
    draws = Draws(Random(name))
    story = FAMILIES[family](draws)
    if story.healthy and not story.watched_from and draws.happens("failed polls", 0.3):
        # A leak has deadlines, which failed polls would make unfair.
        begin = draws.between("blind from s", 300, story.minutes * 50)
        story = replace(story, blind=((begin, begin + draws.magnitude("blind s", 10, 200), FailureReason.TIMEOUT),))
    return replace(story, name=name, drawn=draws.drawn)
