"""Why sessions are not reported, one line for each client and reason."""

from typing import Any

from pgwatch_sessions.core.findings import LeakKind
from pgwatch_sessions.core.judging.maintenance_tools import CONSOLES, is_maintenance_tool
from pgwatch_sessions.core.summaries.not_judged import NotJudged, NotJudgedReason
from pgwatch_sessions.wording.amounts import counted, duration
from pgwatch_sessions.wording.events import client_fields
from pgwatch_sessions.wording.labels import HOW_HELD, client_name
from pgwatch_sessions.wording.sentences import HIDDEN


def not_judged_text(sessions: NotJudged) -> str:
    """Return which sessions are not reported, and why.

    For example `psql (shop, ann), 6 min idle in transaction: a console, reported only when …`.
    """
    parts = [client_name(sessions.client)]
    if sessions.sessions > 1 or sessions.seconds is None:
        parts.append(counted(sessions.sessions, "session"))
    if sessions.seconds is not None:
        up_to = "up to " if sessions.sessions > 1 else ""
        parts.append(f"{up_to}{duration(sessions.seconds)} {_how(sessions)}")
    return f"{', '.join(parts)}: {_why(sessions)}"


def not_judged_fields(sessions: NotJudged) -> dict[str, Any]:
    """Return the sessions and the reason as JSON values."""
    return {
        **client_fields(sessions.client),
        "reason": str(sessions.reason),
        "sessions": sessions.sessions,
        "seconds": None if sessions.seconds is None else round(sessions.seconds, 3),
        "limit_seconds": sessions.limit,
        "text": not_judged_text(sessions),
    }


def _how(sessions: NotJudged) -> str:
    if sessions.in_transaction:
        return HOW_HELD[LeakKind.TRANSACTION_HELD]
    if sessions.reason is NotJudgedReason.HABIT_UNKNOWN:
        return "idle after a statement"
    return HOW_HELD[LeakKind.CONNECTION_HELD]


def _why(sessions: NotJudged) -> str:
    match sessions.reason:
        case NotJudgedReason.HIDDEN:
            return HIDDEN
        case NotJudgedReason.TOOL:
            console = is_maintenance_tool(sessions.client.application, CONSOLES)
            return (
                f"a {'console' if console else 'maintenance tool'}, reported only when it blocks others or holds back "
                "vacuum, or when such sessions fill the server; `--tools ''` judges it"
            )
        case NotJudgedReason.CONFIGURED:
            return f"younger than its limit of {duration(_limit(sessions))} by configuration"
        case NotJudgedReason.HABIT:
            return f"normal at its site, where long holds have ended before; judged after {duration(_limit(sessions))}"
        case NotJudgedReason.HABIT_UNKNOWN:
            return (
                "leaked, or at rest in a pool; this is known when sessions of this client have been used again a few "
                "times while they were watched"
            )
        case NotJudgedReason.YOUNG:
            return f"younger than the hold limit of {duration(_limit(sessions))}"


def _limit(sessions: NotJudged) -> float:
    return sessions.limit or 0.0
