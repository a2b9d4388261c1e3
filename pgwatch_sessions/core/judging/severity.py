"""Decides how much a finding matters: by persistence, growth and harm, never by one threshold alone."""

from pgwatch_sessions.core.findings import Finding, LeakKind, Severity
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import LimitScope

#: The harm of sessions that may still end counts once the oldest has been held for this many limits.
_HARMFUL_AFTER = 3.0
#: A snapshot that is this many transactions old keeps vacuum from its work.
_HARMFUL_XMIN_AGE = 1_000_000
#: A finding stays critical until its forecast is this many horizons away.
_RELIEF = 1.5


def severity_of(finding: Finding, *, limits_held: float, policy: Policy) -> Severity:
    """Return the severity of a finding, whose present severity is that of the last poll.

    `limits_held` says how long its oldest session has been held, in hold limits. A finding never drops below WARNING
    while its sessions are held.
    """
    before = finding.severity
    if not finding.sessions:
        return before
    if not finding.is_leak:
        if _fills_the_server(finding):
            return Severity.CRITICAL
        if limits_held >= _HARMFUL_AFTER and _is_harmful(finding):
            return Severity.WARNING
        return min(before, Severity.WARNING, key=lambda severity: severity.rank)
    near = policy.horizon * (_RELIEF if before is Severity.CRITICAL else 1.0)
    exhausting = finding.rate_per_minute > 0 and finding.exhaustion_seconds < near
    if exhausting or finding.harm.blocked > 0 or finding.harm.fills is not None:
        return Severity.CRITICAL
    return Severity.WARNING


def _is_harmful(finding: Finding) -> bool:
    return finding.harm.blocked > 0 or (finding.harm.xmin_age_max or 0) >= _HARMFUL_XMIN_AGE


def _fills_the_server(finding: Finding) -> bool:
    """Return whether nearly nobody can connect for these sessions, even if they may still end by themselves.

    The limit of a role or a database may be meant for exactly this batch.
    """
    fills = finding.harm.fills
    return (
        fills is not None
        and fills.slots.scope is LimitScope.SERVER
        and finding.key.kind is not LeakKind.ORIGIN_GROWTH  # its sessions are idle, and may be a pool's
    )
