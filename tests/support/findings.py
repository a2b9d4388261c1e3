"""Findings as plain values, for tests of what is said about them."""

from pgwatch_sessions.core.findings import Finding, FindingKey, Harm, LeakKind, Severity
from pgwatch_sessions.core.model import Client, Session
from tests.support.values import NOW, ORDERS


def finding(
    *sessions: Session,
    kind: LeakKind = LeakKind.TRANSACTION_HELD,
    client: Client = ORDERS,
    site: str = "SELECT orders",
    **fields: object,
) -> Finding:
    """Return a finding with these sessions, by default a leak that grows."""
    key = FindingKey(client, kind, site)
    values: dict[str, object] = {
        "key": key,
        "opened_as": key,
        "severity": Severity.WARNING,
        "is_leak": True,
        "is_tool": False,
        "sessions": sessions,
        "evidence": sessions,
        "origins": ("10.0.0.7",),
        "since": NOW - 120,
        "opened_at": NOW,
        "total": len(sessions),
        "rate_per_minute": 12.0,
        "exhaustion_seconds": 300.0,
        "harm": Harm(slots=len(sessions)),
    }
    return Finding(**(values | fields))  # type: ignore[arg-type]  # the fields that a test names
