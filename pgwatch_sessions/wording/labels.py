"""Names for kinds, verdicts, clients and limits, as text for people."""

from collections.abc import Mapping

from pgwatch_sessions.core.findings import LeakKind, Verdict
from pgwatch_sessions.core.limits import LimitId
from pgwatch_sessions.core.model import Client, LimitScope

#: What is wrong with the sessions of a finding: "3 sessions idle in transaction".
HOW_HELD: Mapping[LeakKind, str] = {
    LeakKind.TRANSACTION_HELD: "idle in transaction",
    LeakKind.CONNECTION_HELD: "idle and not returned to the pool",
    LeakKind.ORIGIN_GROWTH: "opened and never used again",
}
VERDICTS: Mapping[Verdict, str] = {
    Verdict.OK: "nothing is wrong",
    Verdict.LEAKING: "leaking",
    Verdict.SATURATED: "too small for its load",
    Verdict.BLOCKED: "blocked by a lock",
    Verdict.SLOW: "slow statements",
    Verdict.UNKNOWN: "not known",
}


def client_name(client: Client) -> str:
    """Return `application (database, user)`."""
    return printable(f"{client.application} ({client.database}, {client.user})")


def limit_name(limit: LimitId) -> str:
    """Return `the server`, `role app` or `database shop`."""
    return "the server" if limit.scope is LimitScope.SERVER else f"{limit.scope} {limit.name}"


def printable(text: str) -> str:
    """Replace control characters, which could steer a terminal. Names come from anybody who connects to the server."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
