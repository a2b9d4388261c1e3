"""Rows into a Snapshot: the one place where what the server sent becomes values, redacted.

What we are connected to may not be PostgreSQL. So rows are checked before they are used: they must have the columns of
our statement, with values of their types. If they do not, UnexpectedRowsError is raised.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pgwatch_sessions.core.clients import client_of, tagged_application
from pgwatch_sessions.core.model import (
    ConnectionLimit,
    DatabaseCounters,
    Server,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.postgres.errors import UnexpectedRowsError


class Row(Protocol):
    """A row as the driver returns it: values by the name of their column."""

    def __getitem__(self, column: str, /) -> Any:
        """Return the column's value."""

    def keys(self) -> Iterator[str]:
        """Return the names of the columns, in the order of the statement."""

    def values(self) -> Iterator[Any]:
        """Return the values, in the same order."""


_NULL = type(None)


class Columns(NamedTuple):
    """What the rows of a statement must look like."""

    #: The columns in their order, with the types of their values. With tuples, isinstance is faster than with unions.
    types: Mapping[str, tuple[type, ...]]
    #: The columns that are times, and what they are below.
    times: tuple[str, ...]
    limit: float


#: The years that Python has dates for, in seconds since 1970. A time outside of them could not be recorded.
_YEAR_1, _YEAR_9999 = -62_000_000_000.0, 253_000_000_000.0

_SESSION = Columns(
    {
        "pid": (int,),
        "backend_start": (float, _NULL),
        "backend_type": (str, _NULL),
        "datname": (str, _NULL),
        "usename": (str, _NULL),
        "application_name": (str, _NULL),
        "client_addr": (str, _NULL),
        "client_port": (int, _NULL),
        "state": (str, _NULL),
        "state_change": (float, _NULL),
        "xact_start": (float, _NULL),
        "query_start": (float, _NULL),
        "wait_event_type": (str, _NULL),
        "wait_event": (str, _NULL),
        "backend_xid_age": (int, _NULL),
        "backend_xmin_age": (int, _NULL),
        "blocked_by": (list, _NULL),
        "query": (bytes, _NULL),
        "taken_at": (float, _NULL),
    },
    times=("backend_start", "state_change", "xact_start", "query_start", "taken_at"),
    limit=_YEAR_9999,
)
_CAPACITY = Columns(
    {
        "server_version_num": (int,),
        "in_recovery": (bool,),
        "started_at": (float,),
        "max_connections": (int,),
        "superuser_reserved_connections": (int,),
        "reserved_connections": (int,),
        "role_limits": (str, _NULL),
        "database_limits": (str, _NULL),
    },
    times=("started_at",),
    limit=_YEAR_9999,
)
_DATABASE = Columns(
    {
        "datname": (str,),
        "established": (int,),
        "abandoned": (int,),
        "fatal": (int,),
        "killed": (int,),
        "session_time": (float,),
        "active_time": (float,),
        "idle_in_transaction_time": (float,),
    },
    times=("session_time", "active_time", "idle_in_transaction_time"),
    limit=1e18,  # milliseconds; NaN is not below it
)

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
    rows: Sequence[Row], seen: Mapping[int, SeenSession], *, parse: Callable[[str | None], Statement]
) -> dict[int, SeenSession]:
    """Make a session of each row of sessions.sql, by pid, or take the one in `seen` whose row is the same.

    Most sessions of most servers are idle from poll to poll, and to compare a row is ten times as fast as to make a
    session of it.
    """
    _check_columns(rows, _SESSION)
    sessions = {}
    for row in rows:
        pid = row["pid"]
        known = seen.get(pid) if isinstance(pid, int) else None
        if known is None or known.row != row:
            _check_values(row, _SESSION)
            known = SeenSession(row, _session(row, parse))
        sessions[pid] = known
    return sessions


def snapshot_of(sessions: Iterable[SeenSession], capacity: Sequence[Row], databases: Sequence[Row]) -> Snapshot:
    """Build the snapshot of one poll from sessions, and the rows of capacity.sql and databases.sql."""
    own, others = None, []
    for each in sessions:
        if each.row["taken_at"] is None:
            others.append(each.session)
        else:
            own = each.row
    if own is None:
        raise UnexpectedRowsError("the server did not show us our own session")
    if len(capacity) != 1:
        raise UnexpectedRowsError(f"the server described itself in {len(capacity)} rows instead of one")
    for rows, columns in ((capacity, _CAPACITY), (databases, _DATABASE)):
        _check_columns(rows, columns)
        for row in rows:
            _check_values(row, columns)
    return Snapshot(
        taken_at=own["taken_at"],
        server=_server(capacity[0]),
        sessions=tuple(others),
        own_user=own["usename"],
        own_database=own["datname"],
        databases=tuple(map(_counters, databases)),
    )


def _check_columns(rows: Sequence[Row], columns: Columns) -> None:
    """All rows of an answer have the same columns, so the first one is enough."""
    if rows and tuple(rows[0].keys()) != tuple(columns.types):
        raise UnexpectedRowsError("the server's rows do not have the columns of our statement")


def _check_values(row: Row, columns: Columns) -> None:
    if not all(map(isinstance, row.values(), columns.types.values())):
        raise UnexpectedRowsError("the server's values do not have the types of our statement's columns")
    for name in columns.times:
        time = row[name]
        if time is not None and not _YEAR_1 < time < columns.limit:
            raise UnexpectedRowsError(f"the server's {name} is out of range: {time}")


def _session(row: Row, parse: Callable[[str | None], Statement]) -> Session:
    hidden = row["backend_type"] is None
    statement = parse(None if hidden or row["query"] is None else decoded(row["query"]))
    return Session(
        id=SessionId(row["pid"], row["backend_start"]),
        client=client_of(row["datname"], row["usename"], row["application_name"], tagged_application(statement)),
        client_addr=row["client_addr"],
        client_port=row["client_port"],
        state=None if hidden else _STATES.get(row["state"], SessionState.STARTING),
        state_change=row["state_change"],
        xact_start=row["xact_start"],
        query_start=row["query_start"],
        wait_event_type=row["wait_event_type"],
        wait_event=row["wait_event"],
        backend_xid_age=row["backend_xid_age"],
        backend_xmin_age=row["backend_xmin_age"],
        blocked_by=tuple(row["blocked_by"] or ()),
        statement=statement,
    )


def _server(row: Row) -> Server:
    return Server(
        version_num=row["server_version_num"],
        in_recovery=row["in_recovery"],
        started_at=row["started_at"],
        max_connections=row["max_connections"],
        superuser_reserved_connections=row["superuser_reserved_connections"],
        reserved_connections=row["reserved_connections"],
        role_limits=_limits(row["role_limits"]),
        database_limits=_limits(row["database_limits"]),
    )


def _limits(document: str | None) -> tuple[ConnectionLimit, ...]:
    try:
        limits = json.loads(document or "{}")
    except (ValueError, RecursionError):
        limits = None
    if not isinstance(limits, dict) or not all(isinstance(slots, int) for slots in limits.values()):
        raise UnexpectedRowsError("the server answered with connection limits that are not names and numbers")
    return tuple(ConnectionLimit(name, slots) for name, slots in limits.items())


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
