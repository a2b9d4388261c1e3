"""Rows into a Snapshot: the one place where what the server sent becomes values, redacted."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from pgwatch_sessions.core.client_names import client_of, tagged_application
from pgwatch_sessions.core.model import (
    END_OF_TIME,
    ConnectionLimit,
    DatabaseCounters,
    ServerInfo,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import Statement


class Row(Protocol):
    """A row as the driver returns it: values by the name of their column."""

    def __getitem__(self, column: str, /) -> Any:
        """Return the column's value."""


_STATES = {str(state): state for state in SessionState}
_MILLISECONDS = 1000.0


class SeenSession(NamedTuple):
    """A session and the row it was made of: while the row stays the same, so does the session."""

    row: Row
    session: Session


def decoded(value: bytes) -> str:
    """Return a text of PostgreSQL, which does not say its encoding. What is not UTF-8 is replaced."""
    return value.decode("utf-8", "replace")


def sessions_of(
    rows: Iterable[Row], seen: Mapping[int, SeenSession], *, parse: Callable[[str | None], Statement]
) -> dict[int, SeenSession]:
    """Make a session of each row of poll.sql, by pid, or take the one in `seen` whose row is the same.

    Most sessions of most servers are idle from poll to poll, and to compare a row is ten times as fast as to make a
    session of it.

    A session may end while the server reads them all, and another one may get its pid: the one that began later counts.
    """
    sessions: dict[int, SeenSession] = {}
    for row in rows:
        pid = row["pid"]
        if pid in sessions and (row["backend_start"] or 0.0) < (sessions[pid].row["backend_start"] or 0.0):
            continue
        known = seen.get(pid)
        if known is None or known.row != row:
            known = SeenSession(row, _session(row, parse))
        sessions[pid] = known
    return sessions


def asked_of(rows: Iterable[Row]) -> tuple[Row, Row]:
    """Return the row of our own session, and what was asked of the server."""
    for row in rows:
        if row["own"] is not None:
            return row, json.loads(row["own"])
    raise LookupError("the server did not show us our own session")


def snapshot_of(sessions: Iterable[SeenSession], own: Row, asked: Row, server: ServerInfo) -> Snapshot:
    """Build the snapshot of a poll from all sessions, what `asked_of` returned, and the server as it was read last."""
    return Snapshot(
        taken_at=_time(asked["taken_at"]),
        server=server,
        sessions=tuple(each.session for each in sessions if each.row["own"] is None),
        own_user=own["usename"],
        own_database=own["datname"],
        databases=tuple(map(_counters, asked["databases"])),
    )


def server_of(row: Row) -> ServerInfo:
    """Build what is known of the server from what was asked of it."""
    return ServerInfo(
        version_num=row["server_version_num"],
        in_recovery=row["in_recovery"],
        started_at=_time(row["started_at"]),
        max_connections=row["max_connections"],
        superuser_reserved_connections=row["superuser_reserved_connections"],
        reserved_connections=row["reserved_connections"],
        role_limits=_limits(row["role_limits"]),
        database_limits=_limits(row["database_limits"]),
    )


def _session(row: Row, parse: Callable[[str | None], Statement]) -> Session:
    hidden = row["hidden"]
    statement = parse(None if hidden or row["query"] is None else decoded(row["query"]))
    return Session(
        id=SessionId(row["pid"], _time(row["backend_start"])),
        client=client_of(row["datname"], row["usename"], row["application_name"], tagged_application(statement)),
        client_addr=row["client_addr"],
        client_port=row["client_port"],
        state=None if hidden else _STATES.get(row["state"], SessionState.STARTING),
        state_change=_time(row["state_change"]),
        xact_start=_time(row["xact_start"]),
        query_start=_time(row["query_start"]),
        wait_event_type=row["wait_event_type"],
        wait_event=row["wait_event"],
        backend_xid_age=row["backend_xid_age"],
        backend_xmin_age=row["backend_xmin_age"],
        blocked_by=tuple(map(int, row["blocked_by"].split(","))) if row["blocked_by"] else (),
        statement=statement,
    )


def _time(seconds: Any) -> Any:
    """Return a time of the server, in seconds since the epoch, or None. ValueError if no clock can show it."""
    if seconds is not None and not 0 <= seconds < END_OF_TIME:
        raise ValueError("the server's answer has a time that is not between the years 1970 and 2999")
    return seconds


def _limits(by_name: Mapping[str, int] | None) -> tuple[ConnectionLimit, ...]:
    return tuple(ConnectionLimit(name, slots) for name, slots in (by_name or {}).items())


def _counters(row: Row) -> DatabaseCounters:
    return DatabaseCounters(
        database=row["datname"],
        established=row["established"],
        abandoned=row["abandoned"],
        fatal=row["fatal"],
        killed=row["killed"],
        session_seconds=row["session_time"] / _MILLISECONDS,
        active_seconds=row["active_time"] / _MILLISECONDS,
        idle_in_transaction_seconds=row["idle_in_transaction_time"] / _MILLISECONDS,
    )
