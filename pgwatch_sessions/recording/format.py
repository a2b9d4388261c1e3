"""The keys of a recording and the values they may have; pydantic checks every line against these classes.

A recording may be written by hand, or to do harm: every value is checked, and no error quotes one. A key that is
missing or null means "not known". Other keys are ignored.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat, PlainValidator, TypeAdapter, ValidationError

from pgwatch_sessions.core.model import ConnectionLimit, FailureReason, LimitScope, SessionState
from pgwatch_sessions.recording.times import seconds_of

#: Backends of other types belong to no application.
CLIENT_BACKEND = "client backend"

#: The fields of `DatabaseCounters`, and their columns in `pg_stat_database`.
COUNTER_KEYS = {
    "database": "datname",
    "established": "sessions",
    "abandoned": "sessions_abandoned",
    "fatal": "sessions_fatal",
    "killed": "sessions_killed",
    "session_seconds": "session_time",
    "active_seconds": "active_time",
    "idle_in_transaction_seconds": "idle_in_transaction_time",
}

#: PostgreSQL allows no more backends, so no list of a poll is longer.
_MAX_ROWS = 2**18
#: No number of PostgreSQL needs more than 64 bits.
_INTEGER_BOUND = 2**63


class InvalidLineError(ValueError):
    """What is wrong with a line, without quoting anything from it."""


def _time(value: object) -> float:
    try:
        return seconds_of(value if isinstance(value, str) else "")
    except OverflowError:
        raise ValueError("Input should be a time between the years 1970 and 2999") from None
    except ValueError:
        raise ValueError("Input should be a time with a time zone") from None


def _printable(text: str) -> str:
    """Return text that is safe to show on a terminal."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def _limits(value: object) -> tuple[ConnectionLimit, ...]:
    """Return the limits that are set; PostgreSQL stores -1 for "no limit"."""
    if not isinstance(value, dict):
        raise ValueError("Input should be an object")  # noqa: TRY004 - pydantic reports ValueError only
    limits = {name: slots for name, slots in value.items() if slots is not None}
    if not all(type(slots) is int and slots < _INTEGER_BOUND for slots in limits.values()):
        raise ValueError("Input should be an object of valid integers")
    return tuple(ConnectionLimit(name, slots) for name, slots in limits.items() if slots >= 0)


#: Names in PostgreSQL have at most 63 bytes.
Text = Annotated[str, Field(max_length=1000)]
PrintableText = Annotated[Text, AfterValidator(_printable)]
Integer = Annotated[int, Field(gt=-_INTEGER_BOUND, lt=_INTEGER_BOUND)]
#: ISO 8601 in the file, seconds since the epoch here.
Time = Annotated[float, PlainValidator(_time)]
#: Milliseconds in the file, seconds here.
Milliseconds = Annotated[FiniteFloat, AfterValidator(lambda milliseconds: milliseconds / 1000)]
#: An object in the file, from a name to a number of connections.
Limits = Annotated[tuple[ConnectionLimit, ...], PlainValidator(_limits)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRow:
    """`server`."""

    name: PrintableText | None = None
    server_version_num: Integer | None = None
    in_recovery: bool | None = None
    started_at: Time | None = None
    max_connections: Integer | None = None
    superuser_reserved_connections: Integer | None = None
    reserved_connections: Integer | None = None
    role_limits: Limits | None = None
    database_limits: Limits | None = None
    own_user: Text | None = None
    own_database: Text | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One of `sessions`, with the columns of `pg_stat_activity`."""

    pid: Integer
    backend_start: Time | None = None
    #: Empty if the key is missing: the row then counts as a client backend.
    backend_type: Text | None = ""
    datname: Text | None = None
    usename: Text | None = None
    application_name: Text | None = None
    client_addr: PrintableText | None = None
    client_port: Integer | None = None
    state: SessionState | None = None
    state_change: Time | None = None
    xact_start: Time | None = None
    query_start: Time | None = None
    wait_event_type: PrintableText | None = None
    wait_event: PrintableText | None = None
    backend_xid_age: Integer | None = None
    backend_xmin_age: Integer | None = None
    blocked_by: Annotated[tuple[Integer, ...], Field(fail_fast=True, max_length=_MAX_ROWS)] | None = None
    query: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseRow:
    """One of `databases`, with the columns of `pg_stat_database`."""

    datname: Text | None = None
    sessions: Integer | None = None
    sessions_abandoned: Integer | None = None
    sessions_fatal: Integer | None = None
    sessions_killed: Integer | None = None
    session_time: Milliseconds | None = None
    active_time: Milliseconds | None = None
    idle_in_transaction_time: Milliseconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """`failure`: why a poll failed."""

    reason: FailureReason
    detail: PrintableText | None = None
    exhausted_scope: LimitScope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRow:
    """A line."""

    taken_at: Time
    server: ServerRow | None = None
    failure: FailureRow | None = None
    sessions: Annotated[tuple[SessionRow, ...], Field(fail_fast=True, max_length=_MAX_ROWS)] | None = None
    databases: Annotated[tuple[DatabaseRow, ...], Field(fail_fast=True, max_length=_MAX_ROWS)] | None = None


_POLL = TypeAdapter(PollRow)


def decode_line(line: bytes | bytearray) -> PollRow:
    """Parse and check a line; InvalidLineError names the first mistake."""
    try:
        return _POLL.validate_json(line, strict=True)
    except ValidationError as error:
        raise InvalidLineError(_reason(error)) from None


def _reason(error: ValidationError) -> str:
    mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mistake["loc"]).lstrip(".")
    what = mistake["msg"].removeprefix("Value error, ").replace(" at line 1 column ", " at column ")
    return f"{place}: {what}" if place else what
