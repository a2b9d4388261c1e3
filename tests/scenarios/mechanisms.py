"""Stories of every family that is drawn at random, with fixed seeds, and some written ones of the same mechanisms."""

from tests.scenarios.chance import between, steady
from tests.scenarios.families import FAMILIES, draw_story
from tests.scenarios.requests import READ_METRICS, Request
from tests.scenarios.shop import BIG, ORDERS, orders
from tests.scenarios.story import Story, Truth

#: The seeds of a family's stories, if not 1 and 2.
_SEEDS = {
    "holds that come back": (1, 2, 3, 4),
    "holds beside a leak": (1, 2, 3),
    "pools without a reset": (1, 2, 10, 23, 35),
    "leaks without a reset": (1, 2, 3, 4),
    "connections never closed": (1, 2, 3),
    "set up and never used": (1, 2, 3),
    "pool too small": (1, 2, 5, 11),
    "maintenance": (1, 2, 3),
    "cold start": (1, 2, 3),
    "leak that stops": (1, 2, 4),
}

WRITTEN = (
    Story(
        name="streams longer than the hold limit",
        family="long holds",
        parts=(
            orders(
                Request(sql=READ_METRICS.sql, thinks=between(60, 130), share=0.1, too_long=True),
                traffic=steady(2),
            ),
        ),
        minutes=60,
        leaks=(
            Truth(
                client=ORDERS, site=READ_METRICS.site, warned_within=600, has_rate=False, calm=True,
                comes_back=True,
            ),
        ),
        server=BIG,
        flat=((600.0, 3600.0),),
    ),
)  # fmt: skip

MECHANISMS = (
    *WRITTEN,
    *(draw_story(family, str(seed)) for family in FAMILIES for seed in _SEEDS.get(family, (1, 2))),
)
