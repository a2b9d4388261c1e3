"""Decides how much a finding matters: by persistence, growth and harm, never by one threshold alone."""

from collections.abc import Sequence

from pgwatch_sessions.core.findings import Finding, Severity
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.limits import SlotUsage

#: The harm of sessions that may still end counts once the oldest has been held for this many limits.
_HARMFUL_AFTER = 3.0
#: A snapshot that is this many transactions old keeps vacuum from its work.
_HARMFUL_XMIN_AGE = 1_000_000
#: A limit is nearly full from this part on. A finding is to blame if it holds a large part of what is used.
_NEARLY_FULL = 0.9
_LARGE_PART = 1 / 3
#: A finding stays critical until its forecast is this many horizons away.
_RELIEF = 1.5


def severity_of(finding: Finding, *, limits_held: float, slots: Sequence[SlotUsage], policy: Policy) -> Severity:
    """Return the severity of a finding, whose present severity is that of the last poll.

    `limits_held` says how long its oldest session has been held, in hold limits. A finding never drops below WARNING
    while its sessions are held.
    """
    before = finding.severity
    if not finding.sessions:
        return before
    if not finding.is_leak:
        if limits_held >= _HARMFUL_AFTER and _is_harmful(finding):
            return Severity.WARNING
        return min(before, Severity.WARNING, key=lambda severity: severity.rank)
    near = policy.horizon * (_RELIEF if before is Severity.CRITICAL else 1.0)
    exhausting = finding.rate_per_minute > 0 and finding.exhaustion_seconds < near
    if exhausting or finding.harm.blocked > 0 or _fills_a_limit(finding, slots):
        return Severity.CRITICAL
    return Severity.WARNING


def _is_harmful(finding: Finding) -> bool:
    return finding.harm.blocked > 0 or (finding.harm.xmin_age_max or 0) >= _HARMFUL_XMIN_AGE


def _fills_a_limit(finding: Finding, slots: Sequence[SlotUsage]) -> bool:
    """Return whether a limit is nearly full and the held sessions are a large part of what counts against it."""
    return any(
        each.used >= _NEARLY_FULL * each.capacity and len(finding.sessions) >= _LARGE_PART * each.used
        for each in slots
        if each.limit.applies_to(finding.key.client)
    )
