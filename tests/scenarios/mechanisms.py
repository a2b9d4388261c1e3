"""Stories of every family that is drawn at random, with fixed seeds, and some written ones of the same mechanisms."""

from tests.scenarios.chance import between, steady
from tests.scenarios.families import FAMILIES, draw_story
from tests.scenarios.requests import READ_METRICS, Request
from tests.scenarios.shop import BIG, ORDERS, orders
from tests.scenarios.story import Story, Truth

#: How many stories of a family are played, if not two.
_MORE = {
    "holds that come back": 4,
    "holds beside a leak": 3,
    "pools without a reset": 4,
    "leaks without a reset": 3,
    "connections never closed": 3,
    "set up and never used": 3,
    "cold start": 3,
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
                client=ORDERS, site=READ_METRICS.site, enough=5, warned_within=600, has_rate=False, calm=True,
                comes_back=True,
            ),
        ),
        server=BIG,
        flat=((600.0, 3600.0),),
    ),
)  # fmt: skip

MECHANISMS = (
    *WRITTEN,
    *(draw_story(family, str(seed)) for family in FAMILIES for seed in range(1, _MORE.get(family, 2) + 1)),
)
