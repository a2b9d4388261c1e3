"""Each row is one rule of severity: a finding as plain values, and how much it matters."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import pytest

from pgwatch_sessions.core.findings import FilledLimit, Finding, Harm, LeakKind, Recurrence, Severity
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.severity import severity_of
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Client, LimitScope, SessionState
from tests.support.findings import finding
from tests.support.values import session

NOTICE, WARNING, CRITICAL = Severity.NOTICE, Severity.WARNING, Severity.CRITICAL
POLICY = Policy(horizon=3600.0)
OTHER = Client("shop", "app", "billing")
HELD = finding(
    *(session(pid, SessionState.IDLE_IN_TRANSACTION) for pid in range(3)),
    severity=NOTICE,
    is_leak=False,
    rate_per_minute=0.0,
    exhaustion_seconds=math.inf,
)
LEAK = replace(HELD, is_leak=True)
RESTING = replace(HELD, key=HELD.key._replace(kind=LeakKind.ORIGIN_GROWTH))
GROWING = replace(LEAK, rate_per_minute=6.0)


def filling(held: Finding, scope: LimitScope = LimitScope.SERVER) -> Finding:
    """Return the finding with a limit that its sessions fill."""
    return replace(held, harm=replace(held.harm, fills=FilledLimit(SlotUsage(scope, "app", 10, 9), held=4)))


def blocking(seconds: float, *, blocked: int = 2, stopped: Client | None = None) -> Finding:
    """Return held sessions that others have waited for."""
    return replace(HELD, harm=Harm(slots=3, blocked=blocked, blocked_seconds=seconds, stopped=stopped))


class Row(NamedTuple):
    """A finding, for how many limits its oldest session was held, the severity; how long and whether use grows."""

    finding: Finding
    limits_held: float
    expected: Severity
    growing_for: float = 600.0
    slots_grow: bool = True


ROWS: Mapping[str, Row] = {
    "held sessions that may still end": Row(HELD, 10.0, NOTICE),
    "somebody has just begun to wait for them": Row(blocking(9.0), 1.0, NOTICE),
    "they block others": Row(blocking(10.0), 1.0, WARNING),
    "they have blocked others for two limits": Row(blocking(120.0), 2.5, CRITICAL),
    "they have blocked others for two limits, but nobody now": Row(blocking(120.0, blocked=0), 2.5, NOTICE),
    "all running sessions of another client wait for them": Row(blocking(10.0, stopped=OTHER), 1.0, CRITICAL),
    "the same, for a moment": Row(blocking(9.0, stopped=OTHER), 1.0, NOTICE),
    "their holds end and come back": Row(replace(HELD, recurrence=Recurrence(12, 3600, 120, 300)), 1.0, WARNING),
    "they hold back vacuum by a million transactions for three limits": Row(
        replace(HELD, harm=Harm(slots=3, xmin_age_max=1_000_000)), 3.0, WARNING,
    ),
    "they hold back vacuum by less": Row(replace(HELD, harm=Harm(slots=3, xmin_age_max=999_999)), 9.0, NOTICE),
    "a warning stays one while sessions are held": Row(replace(HELD, severity=WARNING), 1.0, WARNING),
    "critical without a leak becomes a warning": Row(replace(HELD, severity=CRITICAL), 1.0, WARNING),
    "a leak": Row(LEAK, 1.0, WARNING),
    "a leak that blocks others": Row(replace(LEAK, harm=Harm(slots=3, blocked=1)), 1.0, CRITICAL),
    "a leak that grows slowly": Row(replace(GROWING, exhaustion_seconds=3600.0), 1.0, WARNING),
    "a leak that reaches a limit within the horizon": Row(
        replace(GROWING, exhaustion_seconds=3599.0), 1.0, CRITICAL,
    ),
    "it reaches a limit later than a few minutes of growth can tell": Row(
        replace(GROWING, exhaustion_seconds=3000.0), 1.0, WARNING, growing_for=400.0,
    ),
    "it takes sessions that its pool had open already": Row(
        replace(GROWING, exhaustion_seconds=3000.0), 1.0, WARNING, slots_grow=False,
    ),
    "a leak that does not grow, on a server that others fill": Row(
        replace(LEAK, exhaustion_seconds=60.0), 1.0, WARNING,
    ),
    "critical until the forecast is 1.5 horizons away": Row(
        replace(GROWING, severity=CRITICAL, exhaustion_seconds=5399.0), 1.0, CRITICAL, growing_for=900.0,
    ),
    "a warning again at 1.5 horizons": Row(
        replace(GROWING, severity=CRITICAL, exhaustion_seconds=5400.0), 1.0, WARNING,
    ),
    "a leak that fills a limit": Row(filling(LEAK, LimitScope.ROLE), 1.0, CRITICAL),
    "held sessions that fill the server, though they may still end": Row(filling(HELD), 1.0, CRITICAL),
    "they fill only their role's limit, which may be meant for them": Row(
        filling(HELD, LimitScope.ROLE), 1.0, NOTICE,
    ),
    "a pool at rest on a full server": Row(filling(RESTING), 1.0, NOTICE),
    "without sessions it stays what it was": Row(replace(LEAK, severity=CRITICAL, sessions=()), 0.0, CRITICAL),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_severity(row: Row) -> None:
    """Severity follows from persistence, growth and harm, and from what it was before."""
    severity = severity_of(
        row.finding,
        limits_held=row.limits_held,
        growing_for=row.growing_for,
        slots_grow=row.slots_grow,
        policy=POLICY,
    )
    assert severity is row.expected
