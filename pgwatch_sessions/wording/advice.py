"""What to tell a person about a finding: the likely cause, what to do, and the SQL to paste.

A person decides. Nothing here is ever done by the daemon, which only reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.model import Session, SessionId
from pgwatch_sessions.wording.causes import CAUSES
from pgwatch_sessions.wording.client_software import recognise_software
from pgwatch_sessions.wording.remedies import REMEDIES

#: Relative to the project's root.
RUNBOOK = "alerts/runbooks/DatabaseConnectionLeak.md"
#: Statements given to end sessions: as many as somebody pastes.
MAX_TERMINATED = 10
_TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %d AND backend_start = '%s';"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to tell a person about one finding; plain text and SQL."""

    #: The likely cause, in sentences.
    cause: str
    #: What to do, in this order.
    steps: tuple[str, ...]
    #: SQL that ends the longest held sessions, one each; then a comment where there are more.
    terminate: tuple[str, ...]
    #: Where to read on: a page of the project and its anchor.
    runbook: str


def advice_of(finding: Finding, beside: Iterable[Session] = ()) -> Advice:
    """Advise on a finding; `beside` are further sessions of its client, which may show what software it is."""
    signs = recognise_software((*finding.sessions, *beside))
    return Advice(
        cause=" ".join(filter(None, (cause(finding, signs) for cause in CAUSES))),
        steps=tuple(filter(None, (remedy(finding, signs) for remedy in REMEDIES))),
        terminate=_terminations(finding.sessions),
        runbook=f"{RUNBOOK}#{finding.key.kind.replace('_', '-')}",
    )


def termination_of(identity: SessionId) -> str | None:
    """Return SQL that ends this session and never one that has its pid later; None when its start is not known."""
    if identity.backend_start is None:
        return None
    start = datetime.fromtimestamp(identity.backend_start, UTC).isoformat(" ", "microseconds").removesuffix(":00")
    return _TERMINATE % (identity.pid, start)


def _terminations(sessions: Iterable[Session]) -> tuple[str, ...]:
    statements = [sql for session in sessions if (sql := termination_of(session.id)) is not None]
    more = len(statements) - MAX_TERMINATED
    return (*statements[:MAX_TERMINATED], *([f"-- and {more} more"] if more > 0 else ()))
