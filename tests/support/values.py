"""Sessions and snapshots for tests: a test names only the fields that matter to it."""

from collections.abc import Iterable

from pgwatch_sessions.core.client_names import client_of
from pgwatch_sessions.core.model import Client, DatabaseCounters, ServerInfo, Session, SessionId, SessionState, Snapshot
from pgwatch_sessions.core.statements import parse_statement

#: The time of most tests, by the server's clock.
NOW = 1_800_000_000.0
ORDERS = Client("shop", "app", "orders")


def session(
    pid: int = 1,
    state: SessionState | None = SessionState.IDLE,
    *,
    client: Client = ORDERS,
    since: float = NOW - 1,
    born: float = NOW - 100,
    query: str = "SELECT 1",
    **fields: object,
) -> Session:
    """Return a session that entered its state at `since`; a state of None is hidden."""
    values: dict[str, object] = {
        "id": SessionId(pid, born),
        "client": client_of(*client, None),
        "client_addr": "10.0.0.7",
        "client_port": 40000 + pid,
        "state": state,
        "state_change": since if state else None,
        "xact_start": since if state is SessionState.IDLE_IN_TRANSACTION else None,
        "query_start": since if state else None,
        "wait_event_type": None,
        "wait_event": None,
        "backend_xid_age": None,
        "backend_xmin_age": None,
        "blocked_by": (),
        "statement": parse_statement(query if state else None),
    }
    return Session(**(values | fields))  # type: ignore[arg-type]  # the fields a test names


def snapshot(
    *sessions: Session,
    at: float = NOW,
    server: ServerInfo | None = None,
    databases: Iterable[DatabaseCounters] = (),
) -> Snapshot:
    """Return the snapshot of a poll that returned these sessions."""
    return Snapshot(
        taken_at=at,
        server=server or ServerInfo(version_num=180004, in_recovery=False, started_at=NOW - 1e6, max_connections=100),
        sessions=sessions,
        own_user="pgwatch_sessions",
        own_database="postgres",
        databases=tuple(databases),
    )
