"""Lines of a recording into polls: redacted, as what a server sends us is.

A recording may be made by hand, or by somebody who means no good: every value is checked, and what is wrong is said
without quoting it.
"""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from pgwatch_sessions.core.client_names import client_of, tagged_application
from pgwatch_sessions.core.model import (
    NONE,
    ConnectionLimit,
    DatabaseCounters,
    Failure,
    FailureReason,
    LimitScope,
    ServerInfo,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import Statement, parse_statement
from pgwatch_sessions.recording.fields import (
    InvalidError,
    Row,
    document_of,
    integer,
    integers,
    member,
    milliseconds,
    objects,
    plain_text,
    section,
    text,
    time,
    truth,
)
from pgwatch_sessions.recording.lines import BadLine, read_lines

#: The one kind of backend that is a session to us.
CLIENT_BACKEND = "client backend"

_STATES = {str(state): state for state in SessionState}
_REASONS = {str(reason): reason for reason in FailureReason}
_SCOPES = {str(scope): scope for scope in LimitScope}
#: Servers whose last poll is kept at hand; a recording of more is read, only slower.
_MAX_SERVERS = 64


class Poll(NamedTuple):
    """One line of a recording."""

    #: Of the line, from 1.
    number: int
    outcome: Snapshot | Failure
    #: Seconds since the epoch.
    taken_at: float
    #: A line that does not say belongs to the server named last; `(none)` before any was.
    server: str


@dataclass(slots=True, kw_only=True)
class _LastPoll:
    """What a server's last poll was made of: most of it comes again."""

    server_row: Row = field(default_factory=dict)
    server: ServerInfo = field(default_factory=ServerInfo)
    #: By pid.
    sessions: dict[int, tuple[Row, Session]] = field(default_factory=dict)


def read_polls(
    source: BinaryIO, *, parse: Callable[[str | None], Statement] = parse_statement
) -> Iterator[Poll | BadLine]:
    """Yield the polls of a recording, plain or gzip, in the order of the file; blank lines are skipped.

    Raises nothing but what reading from the source raises, and holds no more than a line and a poll in memory.
    """
    last_polls: dict[str, _LastPoll] = {}
    server = NONE
    for line in read_lines(source):
        if isinstance(line, BadLine):
            yield line
            continue
        if line.content.isspace() or not line.content:
            continue
        try:
            document = document_of(line.content)
            poll = _poll(line.number, document, server, last_polls, parse)
        except InvalidError as error:
            yield BadLine(line.number, str(error))
        except RecursionError:
            yield BadLine(line.number, "nested too deeply")
        else:
            server = poll.server
            yield poll


def _poll(
    number: int,
    document: Row,
    server_before: str,
    last_polls: dict[str, _LastPoll],
    parse: Callable[[str | None], Statement],
) -> Poll:
    taken_at = time(document, "taken_at")
    if taken_at is None:
        raise InvalidError("taken_at is missing")
    server_row = section(document, "server")
    server = (plain_text(server_row, "name") or "").strip() or server_before
    if document.get("failure") is not None:
        return Poll(number, _failure(section(document, "failure")), taken_at, server)
    if len(last_polls) >= _MAX_SERVERS and server not in last_polls:
        last_polls.clear()
    last_poll = last_polls.setdefault(server, _LastPoll())
    return Poll(number, _snapshot(document, taken_at, server_row, last_poll, parse), taken_at, server)


def _failure(row: Row) -> Failure:
    reason = member(row, "reason", _REASONS)
    if reason is None:
        raise InvalidError("failure.reason is missing")
    return Failure(
        reason=reason,
        detail=plain_text(row, "detail") or "",
        exhausted_scope=member(row, "exhausted_scope", _SCOPES),
    )


def _snapshot(
    document: Row, taken_at: float, server_row: Row, last: _LastPoll, parse: Callable[[str | None], Statement]
) -> Snapshot:
    if document.get("sessions") is None:
        raise InvalidError("neither sessions nor failure")
    sessions = _sessions(objects(document, "sessions"), last.sessions, parse)
    if server_row != last.server_row:
        last.server, last.server_row = _server(server_row), server_row
    snapshot = Snapshot(
        taken_at=taken_at,
        server=last.server,
        sessions=tuple(session for _, session in sessions.values()),
        own_user=text(server_row, "own_user"),
        own_database=text(server_row, "own_database"),
        databases=tuple(filter(None, map(_counters, objects(document, "databases")))),
    )
    last.sessions = sessions
    return snapshot


def _sessions(
    rows: list[Row], before: dict[int, tuple[Row, Session]], parse: Callable[[str | None], Statement]
) -> dict[int, tuple[Row, Session]]:
    """Make the sessions of client backends. One whose row is as it was in the poll before is the same object."""
    sessions: dict[int, tuple[Row, Session]] = {}
    for index, row in enumerate(rows):
        if not _is_client_backend(row):
            continue
        try:
            pid = _pid(row, sessions)
            known = before.get(pid)
            sessions[pid] = known if known and known[0] == row else (row, _session(row, pid, parse))
        except InvalidError as error:
            raise InvalidError(f"sessions[{index}]: {error}") from None
    return sessions


def _pid(row: Row, taken: Container[int]) -> int:
    pid = integer(row, "pid")
    if pid is None:
        raise InvalidError("pid is missing")
    if pid in taken:
        raise InvalidError("pid stands twice")
    return pid


def _is_client_backend(row: Row) -> bool:
    """Tell sessions from background processes, which have no user or no database where a role may not see more."""
    backend_type = row.get("backend_type", CLIENT_BACKEND)
    if backend_type is None:
        return row.get("usename") is not None and row.get("datname") is not None
    return bool(backend_type == CLIENT_BACKEND)


def _session(row: Row, pid: int, parse: Callable[[str | None], Statement]) -> Session:
    statement = parse(text(row, "query", bounded=False))
    client = client_of(
        text(row, "datname"), text(row, "usename"), text(row, "application_name"), tagged_application(statement)
    )
    return Session(
        id=SessionId(pid, time(row, "backend_start")),
        client=client,
        client_addr=plain_text(row, "client_addr"),
        client_port=integer(row, "client_port"),
        state=_state(row),
        state_change=time(row, "state_change"),
        xact_start=time(row, "xact_start"),
        query_start=time(row, "query_start"),
        wait_event_type=plain_text(row, "wait_event_type"),
        wait_event=plain_text(row, "wait_event"),
        backend_xid_age=integer(row, "backend_xid_age"),
        backend_xmin_age=integer(row, "backend_xmin_age"),
        blocked_by=integers(row, "blocked_by"),
        statement=statement,
    )


def _state(row: Row) -> SessionState | None:
    """Return the state; None where it may not be seen, or the recording lacks it."""
    state = member(row, "state", _STATES)
    if state is None and "state" in row and row.get("backend_type") == CLIENT_BACKEND:
        return SessionState.STARTING  # what PostgreSQL before 18 shows while it authenticates
    return state


def _server(row: Row) -> ServerInfo:
    return ServerInfo(
        version_num=integer(row, "server_version_num"),
        in_recovery=truth(row, "in_recovery"),
        started_at=time(row, "started_at"),
        max_connections=integer(row, "max_connections"),
        superuser_reserved_connections=integer(row, "superuser_reserved_connections") or 0,
        reserved_connections=integer(row, "reserved_connections") or 0,
        role_limits=_limits(row, "role_limits"),
        database_limits=_limits(row, "database_limits"),
    )


def _limits(row: Row, key: str) -> tuple[ConnectionLimit, ...]:
    limits = section(row, key)
    slots = ((name, integer(limits, name, called=key)) for name in limits)
    # PostgreSQL writes no limit as -1.
    return tuple(ConnectionLimit(name, number) for name, number in slots if number is not None and number >= 0)


def _counters(row: Row) -> DatabaseCounters | None:
    """Return a database's counters; None where one is not known."""
    database = text(row, "datname")
    counts = [integer(row, key) for key in ("sessions", "sessions_abandoned", "sessions_fatal", "sessions_killed")]
    spent = [milliseconds(row, key) for key in ("session_time", "active_time", "idle_in_transaction_time")]
    if database is None or None in counts or None in spent:
        return None
    established, abandoned, fatal, killed = (count or 0 for count in counts)
    session_seconds, active_seconds, idle_in_transaction_seconds = (seconds or 0.0 for seconds in spent)
    return DatabaseCounters(
        database=database,
        established=established,
        abandoned=abandoned,
        fatal=fatal,
        killed=killed,
        session_seconds=session_seconds,
        active_seconds=active_seconds,
        idle_in_transaction_seconds=idle_in_transaction_seconds,
    )
