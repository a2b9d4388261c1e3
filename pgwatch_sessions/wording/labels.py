"""What kinds of leak, verdicts, clients and limits are called, for people."""

from collections.abc import Mapping

from pgwatch_sessions.core.findings import LeakKind, Verdict
from pgwatch_sessions.core.limits import LimitId
from pgwatch_sessions.core.model import NONE, Client, LimitScope

#: Completes "3 sessions ...", for each kind of leak.
HOW_HELD: Mapping[LeakKind, str] = {
    LeakKind.TRANSACTION_HELD: "idle in transaction",
    LeakKind.TRANSACTION_KEPT: "in a transaction that is never ended, but used again",
    LeakKind.CONNECTION_HELD: "idle and not returned to the pool",
    LeakKind.ORIGIN_GROWTH: "idle while others are opened",
}
VERDICTS: Mapping[Verdict, str] = {
    Verdict.OK: "nothing is wrong",
    Verdict.LEAKING: "leaking",
    Verdict.SATURATED: "too small for its load",
    Verdict.BLOCKED: "blocked by a lock",
    Verdict.SLOW: "slow statements",
    Verdict.UNKNOWN: "not known",
}

#: Completes "the server ...".
VERDICT_PHRASES: Mapping[Verdict, str] = {
    Verdict.OK: "is ok",
    Verdict.LEAKING: "is leaking",
    Verdict.SATURATED: "has too few connections for its load",
    Verdict.BLOCKED: "is blocked",
    Verdict.SLOW: "has slow statements",
    Verdict.UNKNOWN: "cannot be judged",
}


def client_name(client: Client) -> str:
    """Return `application (database, user)`, or `user@database` if it has no application_name."""
    if client.application == NONE:
        return printable(client.short_name)
    return printable(f"{client.application} ({client.database}, {client.user})")


def limit_name(limit: LimitId) -> str:
    """Return `the server`, `role app` or `database shop`."""
    return "the server" if limit.scope is LimitScope.SERVER else f"{limit.scope} {limit.name}"


def quoted_name(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def printable(text: str) -> str:
    """Replace control characters by `?`. Every client chooses its own name, and could send commands to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
