"""How much a finding matters: by persistence, growth and harm, never by one threshold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pgwatch_sessions.core.findings import Finding, Severity
from pgwatch_sessions.core.forecast import Limit, Slots
from pgwatch_sessions.core.policy import Policy

#: One session's harm counts when it has been held for so many limits.
_HARMFUL = 3.0
#: A snapshot so many transactions old keeps vacuum from its work.
_XMIN_HARM = 1_000_000
#: Nearly full, and held sessions a large part of it.
_NEARLY_FULL = 0.9
_LARGE_PART = 1 / 3
#: A forecast must recede this far behind the horizon before a finding is critical no more.
_RELIEF = 1.5


def judge(
    finding: Finding,
    *,
    limits_held: float,
    slots: Sequence[Slots],
    exhaustion: Mapping[Limit, float],
    policy: Policy,
) -> Finding:
    """Give the finding its forecast and severity. `limits_held` is how many limits its oldest session is held for."""
    client = finding.key.client
    seconds = min((left for limit, left in exhaustion.items() if limit.concerns(client)), default=math.inf)
    finding = replace(finding, exhaustion_seconds=seconds if finding.sessions else math.inf)
    return replace(finding, severity=_severity(finding, limits_held, slots, policy))


def _severity(finding: Finding, limits_held: float, slots: Sequence[Slots], policy: Policy) -> Severity:
    """While its sessions are there, a warning stays one."""
    before = finding.severity
    if not finding.sessions:
        return before
    if not finding.is_leak:
        if limits_held >= _HARMFUL and _does_harm(finding):
            return Severity.WARNING
        return min(before, Severity.WARNING, key=lambda severity: severity.rank)
    near = policy.horizon * (_RELIEF if before is Severity.CRITICAL else 1.0)
    exhausting = finding.rate_per_minute > 0 and finding.exhaustion_seconds < near
    if exhausting or finding.harm.blocked > 0 or _fills(finding, slots):
        return Severity.CRITICAL
    return Severity.WARNING


def _does_harm(finding: Finding) -> bool:
    return finding.harm.blocked > 0 or (finding.harm.xmin_age_max or 0) >= _XMIN_HARM


def _fills(finding: Finding, slots: Sequence[Slots]) -> bool:
    """Tell whether a limit is nearly reached, and the held sessions are a large part of what counts against it."""
    return any(
        each.used >= _NEARLY_FULL * each.capacity and len(finding.sessions) >= _LARGE_PART * each.used
        for each in slots
        if each.limit.concerns(finding.key.client)
    )
