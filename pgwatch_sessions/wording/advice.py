"""Advice on a finding: the likely cause, what to do, and SQL that terminates its sessions.

The daemon never carries out any of it. It only reads; a person decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.model import Session, SessionId
from pgwatch_sessions.wording.causes import cause_of
from pgwatch_sessions.wording.client_software import recognise_software
from pgwatch_sessions.wording.remedies import remedies_of

#: Relative to the project's root.
RUNBOOK = "alerts/runbooks/DatabaseConnectionLeak.md"
#: How many statements that terminate a session are given: as many as a person pastes at once.
MAX_TERMINATED = 10
_TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %d AND backend_start = '%s';"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Advice on one finding, as plain text and SQL. Backquotes enclose code."""

    #: The likely cause, in sentences.
    cause: str
    #: What to do, in this order.
    steps: tuple[str, ...]
    #: One SQL statement for each of the longest held sessions, and a comment if there are more sessions.
    terminate: tuple[str, ...]
    #: The page of the project that tells more, with its anchor.
    runbook: str


def advice_of(finding: Finding, client_sessions: Iterable[Session] = ()) -> Advice:
    """Return the advice on a finding. Other sessions of its client may show which software it uses."""
    software = recognise_software((*finding.evidence, *client_sessions))
    return Advice(
        cause=cause_of(finding, software),
        steps=remedies_of(finding, software),
        terminate=_termination_statements(finding.sessions),
        runbook=f"{RUNBOOK}#{finding.key.kind.replace('_', '-')}",
    )


def termination_statement(identity: SessionId) -> str | None:
    """Return SQL that terminates this session but no later session with its pid; None if its start is not known."""
    if identity.backend_start is None:
        return None
    start = datetime.fromtimestamp(identity.backend_start, UTC).isoformat(" ", "microseconds").removesuffix(":00")
    return _TERMINATE % (identity.pid, start)


def _termination_statements(sessions: Iterable[Session]) -> tuple[str, ...]:
    statements = [sql for session in sessions if (sql := termination_statement(session.id)) is not None]
    more = len(statements) - MAX_TERMINATED
    return (*statements[:MAX_TERMINATED], *([f"-- and {more} more"] if more > 0 else ()))
