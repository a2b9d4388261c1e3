"""Reads recordings: lines become polls, with statements redacted as those from a server are."""

from collections.abc import Callable, Iterator
from io import BufferedReader
from operator import attrgetter
from typing import NamedTuple

from pgwatch_sessions.core.client_names import client_of, tagged_application
from pgwatch_sessions.core.model import (
    NONE,
    DatabaseCounters,
    Failure,
    ServerInfo,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import Statement, parse_statement
from pgwatch_sessions.recording.format import (
    CLIENT_BACKEND,
    COUNTER_KEYS,
    DatabaseRow,
    InvalidLineError,
    PollRow,
    ServerRow,
    SessionRow,
    decode_line,
)
from pgwatch_sessions.recording.lines import MAX_FILE_BYTES, NOT_READ, BadLine, read_lines

Parse = Callable[[str | None], Statement]

#: Servers whose last poll stays in memory. With more servers in a recording, reading is only slower.
_MAX_SERVERS = 64
#: Reading stops after so many lines in a row without a poll: the file is no recording, or it is made to do harm.
MAX_USELESS_LINES = 100_000
_COUNTERS = attrgetter(*COUNTER_KEYS.values())


class RecordedPoll(NamedTuple):
    """One line of a recording."""

    #: The first line is 1.
    number: int
    outcome: Snapshot | Failure
    #: Seconds since the epoch.
    taken_at: float
    #: If the line does not name its server: the last one named before it, `(none)` if there is none.
    server: str


class _Known(NamedTuple):
    """A session and its row. Most rows are the same in the next poll, which then reuses the session."""

    row: SessionRow
    session: Session


def read_polls(
    source: BufferedReader, *, parse: Parse = parse_statement, max_bytes: int = MAX_FILE_BYTES
) -> Iterator[RecordedPoll | BadLine]:
    """Yield the polls of a recording, plain or gzip, in the order of the file; blank lines are skipped.

    OSError if the system cannot read the file. Memory holds one line, and the last poll of each server.
    """
    known_by_server: dict[str, dict[int, _Known]] = {}
    server = NONE
    last_poll = 0
    for line in read_lines(source, max_bytes=max_bytes):
        if line.number - last_poll > MAX_USELESS_LINES:
            yield BadLine(line.number, f"no poll in the {MAX_USELESS_LINES:,} lines before it; {NOT_READ}")
            return
        if isinstance(line, BadLine):
            yield line
        elif line.content.strip():
            try:
                row = decode_line(line.content)
                named_server = ((row.server and row.server.name) or "").strip() or server
                if len(known_by_server) >= _MAX_SERVERS and named_server not in known_by_server:
                    known_by_server.clear()
                outcome = _outcome(row, known_by_server.setdefault(named_server, {}), parse)
            except InvalidLineError as error:
                yield BadLine(line.number, str(error))
            else:
                server, last_poll = named_server, line.number
                yield RecordedPoll(line.number, outcome, row.taken_at, server)


def _outcome(row: PollRow, known: dict[int, _Known], parse: Parse) -> Snapshot | Failure:
    """Return the outcome of a poll; `known` has the sessions of the server's last poll, and then those of this one."""
    if row.failure is not None:
        return Failure(
            reason=row.failure.reason,
            detail=row.failure.detail or "",
            exhausted_scope=row.failure.exhausted_scope,
        )
    if row.sessions is None:
        raise InvalidLineError("neither sessions nor failure")
    sessions: dict[int, _Known] = {}
    for session in row.sessions:
        if _is_client_backend(session) and not _has_ended(session, sessions.get(session.pid)):
            last = known.get(session.pid)
            is_unchanged = last is not None and last.row == session
            sessions[session.pid] = last if last and is_unchanged else _Known(session, _session(session, parse))
    known.clear()
    known.update(sessions)
    server = row.server or ServerRow()
    return Snapshot(
        taken_at=row.taken_at,
        server=_server(server),
        sessions=tuple(session for _, session in sessions.values()),
        own_user=server.own_user,
        own_database=server.own_database,
        databases=tuple(_counters(database) for database in row.databases or () if None not in _COUNTERS(database)),
    )


def _has_ended(session: SessionRow, other: _Known | None) -> bool:
    """Return whether another session has the same pid and began later, as in postgres.rows."""
    return other is not None and (session.backend_start or 0.0) < (other.row.backend_start or 0.0)


def _is_client_backend(row: SessionRow) -> bool:
    """Tell sessions from background processes. If the type is hidden: background processes lack user or database."""
    if row.backend_type is None:
        return row.usename is not None and row.datname is not None
    return row.backend_type in {"", CLIENT_BACKEND}


def _session(row: SessionRow, parse: Parse) -> Session:
    statement = parse(row.query)
    state = row.state
    if state is None and row.backend_type == CLIENT_BACKEND:
        state = SessionState.STARTING  # PostgreSQL before 18 shows no state while a session authenticates
    return Session(
        id=SessionId(row.pid, row.backend_start),
        client=client_of(row.datname, row.usename, row.application_name, tagged_application(statement)),
        client_addr=row.client_addr,
        client_port=row.client_port,
        state=state,
        state_change=row.state_change,
        xact_start=row.xact_start,
        query_start=row.query_start,
        wait_event_type=row.wait_event_type,
        wait_event=row.wait_event,
        backend_xid_age=row.backend_xid_age,
        backend_xmin_age=row.backend_xmin_age,
        blocked_by=row.blocked_by or (),
        statement=statement,
    )


def _server(row: ServerRow) -> ServerInfo:
    return ServerInfo(
        version_num=row.server_version_num,
        in_recovery=row.in_recovery,
        started_at=row.started_at,
        max_connections=row.max_connections,
        superuser_reserved_connections=row.superuser_reserved_connections or 0,
        reserved_connections=row.reserved_connections or 0,
        role_limits=row.role_limits or (),
        database_limits=row.database_limits or (),
    )


def _counters(row: DatabaseRow) -> DatabaseCounters:
    return DatabaseCounters(**dict(zip(COUNTER_KEYS, _COUNTERS(row), strict=True)))
