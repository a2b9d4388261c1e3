"""Writes polls as lines of a recording. Statements are already redacted: no value has any other text of them."""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pgwatch_sessions.core.client_names import client_of, tagged_application
from pgwatch_sessions.core.model import NONE, ConnectionLimit, DatabaseCounters, Failure, ServerInfo, Session, Snapshot
from pgwatch_sessions.recording.format import CLIENT_BACKEND, COUNTER_KEYS
from pgwatch_sessions.recording.times import text_of


def encode_poll(outcome: Snapshot | Failure, *, server: str, at: float) -> bytes:
    """Return a poll as one line, with its newline. `at` dates a failed poll; a snapshot has the server's own time."""
    document = _failed(outcome, server, at) if isinstance(outcome, Failure) else _succeeded(outcome, server)
    line = json.dumps(document, ensure_ascii=False, separators=(",", ":"), check_circular=False)
    return line.encode("utf-8", "replace") + b"\n"


def _failed(failure: Failure, server: str, at: float) -> dict[str, Any]:
    fields = {"reason": failure.reason, "detail": failure.detail, "exhausted_scope": failure.exhausted_scope}
    return {"taken_at": text_of(at), "server": {"name": server}, "failure": fields}


def _succeeded(snapshot: Snapshot, server: str) -> dict[str, Any]:
    return {
        "taken_at": text_of(snapshot.taken_at),
        "server": {
            "name": server,
            **_server(snapshot.server),
            "own_user": snapshot.own_user,
            "own_database": snapshot.own_database,
        },
        "sessions": [_session(session) for session in snapshot.sessions],
        "databases": [_counters(database) for database in snapshot.databases],
    }


def _server(server: ServerInfo) -> dict[str, Any]:
    return {
        "server_version_num": server.version_num,
        "max_connections": server.max_connections,
        "superuser_reserved_connections": server.superuser_reserved_connections,
        "reserved_connections": server.reserved_connections,
        "role_limits": _limits(server.role_limits),
        "database_limits": _limits(server.database_limits),
        "in_recovery": server.in_recovery,
        "started_at": _time(server.started_at),
    }


def _limits(limits: Iterable[ConnectionLimit]) -> dict[str, int]:
    return {limit.name: limit.slots for limit in limits}


def _session(session: Session) -> dict[str, Any]:
    database, user, application = session.client
    return {
        "pid": session.id.pid,
        "backend_start": _time(session.id.backend_start),
        "backend_type": None if session.state is None else CLIENT_BACKEND,
        "datname": None if database == NONE else database,
        "usename": None if user == NONE else user,
        "application_name": _application_name(
            application, tagged_application(session.statement) if application == NONE else None
        ),
        "client_addr": session.client_addr,
        "client_port": session.client_port,
        "state": session.state,
        "state_change": _time(session.state_change),
        "xact_start": _time(session.xact_start),
        "query_start": _time(session.query_start),
        "wait_event_type": session.wait_event_type,
        "wait_event": session.wait_event,
        "backend_xid_age": session.backend_xid_age,
        "backend_xmin_age": session.backend_xmin_age,
        "blocked_by": session.blocked_by,
        "query_id": None,
        "query": session.statement.recordable,
    }


@lru_cache(maxsize=1024)
def _application_name(application: str, tagged: str | None) -> str:
    """Return a name that is read back as this one.

    Reading cuts a pooler's suffix and fills a blank name from the statement's tags. A name that this would change gets
    a pooler's suffix of its own, which reading cuts instead.
    """
    name = "" if application == NONE else application
    read_back = client_of(None, None, name, tagged).application
    return name if read_back == application else f"{application} - pooler:0"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else text_of(seconds)


def _counters(database: DatabaseCounters) -> dict[str, Any]:
    row = {key: getattr(database, name) for name, key in COUNTER_KEYS.items()}
    # In milliseconds, to the microsecond: more precisely PostgreSQL does not count.
    return {key: round(value * 1000, 3) if isinstance(value, float) else value for key, value in row.items()}
