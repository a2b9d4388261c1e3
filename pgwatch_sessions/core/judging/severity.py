"""Decides how much a finding matters: by persistence, growth and harm, never by one threshold alone."""

from pgwatch_sessions.core.findings import Finding, LeakKind, Severity
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import LimitScope

#: That sessions hold back vacuum counts once the oldest has been held for this many limits; they may still end.
_HARMFUL_AFTER = 3.0
#: That others wait for them is harm from this part of the hold limit on, and an outage after this many limits.
_BLOCKED_WARNING = 1 / 6
_BLOCKED_CRITICAL = 2.0
#: A snapshot that is this many transactions old keeps vacuum from its work.
_HARMFUL_XMIN_AGE = 1_000_000
#: A finding stays critical until its forecast is this many horizons away.
_RELIEF = 1.5


def severity_of(
    finding: Finding, *, limits_held: float, growing_for: float, slots_grow: bool, policy: Policy
) -> Severity:
    """Return the severity of a finding, whose present severity is that of the last poll.

    `limits_held` says how long its oldest session has been held, in hold limits; `growing_for` since how many seconds
    the finding has had sessions, and `slots_grow` whether the use of the limit that it will reach grows as well. A
    finding never drops below WARNING while its sessions are held.
    """
    before = finding.severity
    if not finding.sessions:
        return before
    if not finding.is_leak:
        if _fills_the_server(finding) or _is_outage(finding, policy):
            return Severity.CRITICAL
        if finding.recurrence is not None or _is_harmful(finding, limits_held, policy):
            return Severity.WARNING
        return min(before, Severity.WARNING, key=lambda severity: severity.rank)
    near = policy.horizon * (_RELIEF if before is Severity.CRITICAL else 1.0)
    # Some minutes of growth say little about the next hour.
    foreseen = growing_for * policy.horizon / policy.growth_window
    exhausting = finding.rate_per_minute > 0 and finding.exhaustion_seconds < min(near, foreseen) and slots_grow
    if exhausting or finding.harm.blocked > 0 or finding.harm.fills is not None:
        return Severity.CRITICAL
    return Severity.WARNING


def _is_harmful(finding: Finding, limits_held: float, policy: Policy) -> bool:
    harm = finding.harm
    blocks = harm.blocked > 0 and harm.blocked_seconds >= _BLOCKED_WARNING * policy.hold_limit
    return blocks or (limits_held >= _HARMFUL_AFTER and (harm.xmin_age_max or 0) >= _HARMFUL_XMIN_AGE)


def _is_outage(finding: Finding, policy: Policy) -> bool:
    """Return whether others cannot work until its sessions end, even if they may still end by themselves."""
    harm = finding.harm
    return harm.blocked > 0 and (
        harm.blocked_seconds >= _BLOCKED_CRITICAL * policy.hold_limit
        or (harm.stopped is not None and _is_harmful(finding, 0.0, policy))
    )


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
