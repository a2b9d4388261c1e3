"""Each row is the activity of a pool over some polls, and whether it is too small."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from pgwatch_sessions.core.history import History
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.saturation import Activity, saturation
from tests.support.contexts import context_of
from tests.support.values import NOW

CONTEXT = context_of(History(last_poll_at=NOW), Policy())


def polls(
    number: int,
    *,
    sessions: int,
    busy: int,
    turned_over: int,
    active: int | None = None,
    rested: float = 0.0,
    begin: float = NOW,
) -> list[Activity]:
    """Return the same activity at several polls, up to `begin`. All that are busy run a statement by default."""
    running = busy if active is None else active
    return [Activity(begin - 10 * i, sessions, busy, running, turned_over, rested) for i in reversed(range(number))]


class Row(NamedTuple):
    """What is seen of a pool, whether it was too small before, and what is said of it: a part, or nothing."""

    activity: Sequence[Activity]
    said: str
    is_saturated: bool = False


QUIET = polls(12, sessions=10, busy=2, turned_over=2, begin=NOW - 70)
ROWS: Mapping[str, Row] = {
    "all sessions busy and turning over, at most polls": Row(
        polls(5, sessions=10, busy=10, turned_over=6), "all of up to 10 sessions are busy"
    ),
    "busy, but the same transactions: a batch": Row(polls(5, sessions=10, busy=10, turned_over=3, active=2), ""),
    "busy at two polls only": Row(polls(2, sessions=10, busy=10, turned_over=6), ""),
    "four of ten sessions are free": Row(polls(5, sessions=10, busy=6, turned_over=6), ""),
    "slow statements that end": Row(
        polls(7, sessions=10, busy=10, turned_over=2),
        "all of up to 10 sessions are busy and finish their work: on average 10.0 at a time, at least 14 "
        "transactions a minute; raise the pool or shorten the transactions",
    ),
    "statements that do not end": Row(polls(7, sessions=10, busy=10, turned_over=0), ""),
    "one session is no pool": Row(polls(5, sessions=1, busy=1, turned_over=1), ""),
    "the pool grows: its limit is not reached": Row(
        [Activity(NOW - 50 + 10 * i, *[2 * i + 1] * 4) for i in range(5)], ""
    ),
    "seven of ten are busy: chance alone would need more than ten now and then": Row(
        polls(7, sessions=10, busy=7, turned_over=4, rested=5), ""
    ),
    "the same with eight of ten": Row(polls(7, sessions=10, busy=8, turned_over=5, rested=5), "all of up to 10"),
    "a large pool of which a fifth rests for some seconds": Row(
        polls(7, sessions=47, busy=38, turned_over=20, rested=5), ""
    ),
    "a large pool of which a fifth is being handed over": Row(
        polls(7, sessions=47, busy=38, turned_over=30, rested=1), "all of up to 47"
    ),
    "it was quiet two minutes ago, and the pool is still busy": Row(
        [*QUIET, *polls(6, sessions=10, busy=8, turned_over=6)], "all of up to 10", is_saturated=True
    ),
    "load breathes: less than half is busy for a moment": Row(
        [
            *polls(12, sessions=10, busy=10, turned_over=8, begin=NOW - 60),
            *polls(6, sessions=10, busy=4, turned_over=4),
        ],
        "all of up to 10",
        is_saturated=True,
    ),
    "the load is gone": Row(
        [
            *polls(6, sessions=10, busy=10, turned_over=8, begin=NOW - 120),
            *polls(12, sessions=10, busy=1, turned_over=1),
        ],
        "",
        is_saturated=True,
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_pool_that_is_too_small(row: Row) -> None:
    """It is full and busy, finishes its work, and would open more sessions if it could."""
    said = saturation(row.activity, CONTEXT, is_saturated=row.is_saturated)
    assert (row.said in said) if row.said else not said
