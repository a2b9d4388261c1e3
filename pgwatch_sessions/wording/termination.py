"""SQL that terminates sessions. It is printed for a person to run; the daemon only reads."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pgwatch_sessions.core.model import Session, SessionId

#: The most sessions in one statement: as many as a person may still read before running it.
MAX_TERMINATED = 1000
#: PostgreSQL checks the privilege for each session, and cancels the statement at the first that is refused.
PRIVILEGE = "It needs the role of these sessions, or `pg_signal_backend`; sessions of superusers need a superuser."


def termination_sql(sessions: Sequence[Session]) -> str | None:
    """Return one statement that terminates these sessions and no later session with one of their pids.

    None if the start of no session is known. Its result has one row for each session that was still there.
    """
    known = [session.id for session in sessions if session.id.backend_start is not None]
    if not known:
        return None
    rows = ",\n".join(
        f"  ({identity.pid}, '{_start_of(identity)}'::timestamptz)" for identity in known[:MAX_TERMINATED]
    )
    more = len(known) - MAX_TERMINATED
    left_out = f"-- The {MAX_TERMINATED:,} sessions held longest; {more:,} more are left out.\n" if more > 0 else ""
    return (
        f"{left_out}SELECT pid, pg_terminate_backend(pid)\n"
        f"FROM pg_stat_activity\nWHERE (pid, backend_start) IN (VALUES\n{rows});"
    )


def _start_of(identity: SessionId) -> str:
    """Return the start as PostgreSQL writes it in UTC, to the microsecond."""
    start = datetime.fromtimestamp(identity.backend_start or 0.0, UTC)
    return start.isoformat(" ", "microseconds").removesuffix(":00")
