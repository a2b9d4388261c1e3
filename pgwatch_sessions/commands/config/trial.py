"""The trial of a server: what was found there, as a list of checks with what to do."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from ipaddress import ip_address
from typing import NamedTuple

from pgwatch_sessions.core.model import Failure
from pgwatch_sessions.postgres.inspection import Inspection
from pgwatch_sessions.wording.amounts import counted
from pgwatch_sessions.wording.events import grant_statement
from pgwatch_sessions.wording.failures import FAILURE_ADVICE, failure_text
from pgwatch_sessions.wording.labels import quoted_name

_OLDEST, _NEWEST = 14, 18
#: The version that has reserved_connections.
_RESERVING = 160000
#: Statements are often longer than the default of 1 KiB, and a comment with tags stands at their end.
_GOOD_QUERY_SIZE = 4096


class Mark(StrEnum):
    """How a check ended."""

    OK = "ok"
    #: It works, but something should be changed.
    ADVICE = "advice"
    #: The monitoring does not work.
    FAILED = "failed"


class Check(NamedTuple):
    """One line of the list."""

    mark: Mark
    name: str
    #: What was found, and after a semicolon what to do.
    text: str


def checks_of(found: Inspection | Failure) -> Iterator[Check]:
    """Yield the checks of one server. One that was not reached has only the first."""
    if isinstance(found, Failure):
        advice = f". {FAILURE_ADVICE[found.reason]}" if found.reason in FAILURE_ADVICE else ""
        yield Check(Mark.FAILED, "reachable", f"{failure_text(found)}{advice}")
        return
    for name, check in _CHECKS:
        mark, text = check(found)
        yield Check(mark, name, text)


_Found = tuple[Mark, str]


def _reachable(found: Inspection) -> _Found:
    standby = ", a standby" if found.in_recovery else ""
    milliseconds = f"{1000 * found.connect_seconds:.0f} ms"
    return Mark.OK, f"as {found.role}, database {found.database}{standby}, in {milliseconds}"


def _version(found: Inspection) -> _Found:
    supported = f"{_OLDEST} to {_NEWEST} are supported"
    major = found.version_num // 10000
    if major < _OLDEST:
        return Mark.FAILED, f"PostgreSQL {found.version}; {supported}: upgrade it"
    if major > _NEWEST:
        return Mark.ADVICE, f"PostgreSQL {found.version} is newer than this program; {supported}"
    return Mark.OK, f"PostgreSQL {found.version} ({supported})"


def _tls(found: Inspection) -> _Found:
    if found.encrypted:
        return Mark.OK, f"{found.tls_version}, {found.tls_cipher}"
    if found.server_address is None:
        return Mark.OK, "not encrypted; a Unix socket needs no encryption"
    if ip_address(found.server_address).is_loopback:
        return Mark.OK, "not encrypted; the server is on this machine"
    return Mark.ADVICE, "not encrypted; set ssl = on at the server, and sslmode=verify-full with sslrootcert here"


def _pg_monitor(found: Inspection) -> _Found:
    if found.superuser:
        return Mark.ADVICE, f"{found.role} is a superuser; a role with pg_monitor is enough"
    if not found.reads_all_stats:
        return Mark.FAILED, f"the state of other sessions is hidden; run as a superuser: {grant_statement(found.role)}"
    return Mark.OK, "the state of all sessions is visible"


def _role_limit(found: Inspection) -> _Found:
    if found.superuser or found.role_limit < 0:
        return Mark.OK, f"none for {found.role}"
    free = found.role_limit - found.role_sessions
    text = f"{found.role} may have {counted(found.role_limit, 'connection')}, {max(free, 0)} free"
    if free > 0:
        return Mark.OK, text
    return Mark.ADVICE, (
        f"{text}; another daemon or `check` would be refused: ALTER ROLE {quoted_name(found.role)} CONNECTION LIMIT "
        f"{found.role_limit + 2}"
    )


def _slots(found: Inspection) -> _Found:
    usable = found.max_connections - found.superuser_reserved_connections - found.reserved_connections
    text = f"{found.sessions} of {usable} for ordinary roles in use"
    return (Mark.OK, text) if found.sessions < usable else (Mark.ADVICE, f"{text}; the server is full")


def _reserved(found: Inspection) -> _Found:
    if found.superuser:
        return Mark.OK, f"{found.superuser_reserved_connections} for superusers, of which {found.role} is one"
    if found.version_num < _RESERVING:
        return Mark.OK, "PostgreSQL 16 and later can reserve some; before, a full server refuses a daemon that starts"
    grant = f"GRANT pg_use_reserved_connections TO {quoted_name(found.role)}"
    if not found.reserved_connections:
        return Mark.ADVICE, (
            f"none; a full server refuses a daemon that starts: set reserved_connections = 3, restart, and {grant}"
        )
    if not found.uses_reserved:
        return Mark.ADVICE, f"{found.reserved_connections}, but not for {found.role}; {grant}"
    return Mark.OK, f"{found.reserved_connections}, and {found.role} may use them"


def _pooler(found: Inspection) -> _Found:
    if found.pid == found.greeted_pid:
        return Mark.OK, "none in between"
    return Mark.FAILED, (
        "a pooler answers in place of PostgreSQL; give host and port of PostgreSQL itself, because a pooler shares our "
        "session with others and refuses us when it is full"
    )


def _query_size(found: Inspection) -> _Found:
    if found.query_size >= _GOOD_QUERY_SIZE:
        return Mark.OK, f"{found.query_size} B"
    return Mark.ADVICE, (
        f"{found.query_size} B; longer statements are cut, and lose the tags at their end: set "
        f"track_activity_query_size = {_GOOD_QUERY_SIZE}, and restart"
    )


def _track_activities(found: Inspection) -> _Found:
    if not found.track_activities:
        return Mark.FAILED, "off; states of sessions are not known: set track_activities = on, and reload"
    if found.untracked_sessions:
        return Mark.ADVICE, f"off in {counted(found.untracked_sessions, 'session')}; set it on for their roles"
    return Mark.OK, "on"


def _application_names(found: Inspection) -> _Found:
    if not found.unnamed_sessions:
        return Mark.OK, f"every session has one ({found.sessions})"
    return Mark.ADVICE, (
        f"{found.unnamed_sessions} of {counted(found.sessions, 'session')} have none; set application_name in the "
        "connection strings of the applications, so that a finding names one"
    )


_CHECKS: tuple[tuple[str, Callable[[Inspection], _Found]], ...] = (
    ("reachable", _reachable),
    ("version", _version),
    ("pooler", _pooler),
    ("TLS", _tls),
    ("pg_monitor", _pg_monitor),
    ("connection limit", _role_limit),
    ("slots", _slots),
    ("reserved slots", _reserved),
    ("track_activities", _track_activities),
    ("track_activity_query_size", _query_size),
    ("application names", _application_names),
)
