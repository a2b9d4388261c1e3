"""What a look saw, as values.

All times are seconds since the Unix epoch by the watched server's own clock, with microseconds kept exactly
(2^53 µs reach into the year 2255). None means "not known", never zero.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pgwatch_sessions.core.statements import Statement

#: Stands in labels for a database, user or application that has no name (yet).
NONE = "(none)"
#: Stands in labels for everything beyond a budget.
OTHER = "other"


class SessionState(StrEnum):
    """`pg_stat_activity.state`, every value of PostgreSQL 14 to 18."""

    ACTIVE = "active"
    IDLE = "idle"
    IDLE_IN_TRANSACTION = "idle in transaction"
    ABORTED = "idle in transaction (aborted)"
    FASTPATH = "fastpath function call"
    #: Authenticating: holds a slot, belongs to no database yet. Before 18 such a row has no state.
    STARTING = "starting"
    #: `track_activities` is off in that session.
    DISABLED = "disabled"


#: The states in which a transaction is open and nothing runs.
IDLE_IN_TRANSACTION_STATES = frozenset({SessionState.IDLE_IN_TRANSACTION, SessionState.ABORTED})


class SessionId(NamedTuple):
    """What identifies a session for ever; a pid alone is recycled."""

    pid: int
    backend_start: float | None


class Client(NamedTuple):
    """The unit in which a pool lives and leaks."""

    database: str
    user: str
    application: str


#: Every client beyond the label budget, as one.
OTHER_CLIENT = Client(OTHER, OTHER, OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One client backend at one look."""

    id: SessionId
    client: Client
    #: As text; None on a Unix socket, or when hidden.
    client_addr: str | None
    #: -1 on a Unix socket.
    client_port: int | None
    #: None when the monitoring role may not see it: the session is *hidden*.
    state: SessionState | None
    #: Since when the session is in its state; the one age that an aborted transaction has.
    state_change: float | None
    xact_start: float | None
    query_start: float | None
    wait_event_type: str | None
    wait_event: str | None
    #: How many transactions ago its xid was assigned, and how far its xmin holds back vacuum.
    backend_xid_age: int | None
    backend_xmin_age: int | None
    #: Pids it waits for; asked of the longest-waiting sessions only.
    blocked_by: tuple[int, ...]
    statement: Statement


class ConnectionLimit(NamedTuple):
    """How many connections a role or a database may have."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the server says of itself."""

    version_num: int | None = None
    in_recovery: bool | None = None
    #: When the postmaster started: a change means that every session is new.
    started_at: float | None = None
    max_connections: int | None = None
    superuser_reserved_connections: int = 0
    #: PostgreSQL 16 and newer.
    reserved_connections: int = 0
    role_limits: tuple[ConnectionLimit, ...] = ()
    database_limits: tuple[ConnectionLimit, ...] = ()

    @property
    def ordinary_slots(self) -> int | None:
        """The connections that roles without privilege can use together."""
        if self.max_connections is None:
            return None
        return self.max_connections - self.superuser_reserved_connections - self.reserved_connections


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCounters:
    """`pg_stat_database`'s session counters; each grows until the statistics are reset."""

    database: str
    established: int
    #: Ended because the client vanished, by a fatal error, by an operator.
    abandoned: int
    fatal: int
    killed: int
    session_seconds: float
    active_seconds: float
    idle_in_transaction_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything one look saw."""

    #: The server's `clock_timestamp()`, read after the sessions.
    taken_at: float
    server: Server
    #: Client backends other than our own session.
    sessions: tuple[Session, ...]
    #: The role of our own session, which uses a slot and belongs to no client; None in a recording.
    own_user: str | None = None
    own_database: str | None = None
    databases: tuple[DatabaseCounters, ...] = ()


class Reason(StrEnum):
    """Why a look failed: a closed set, since it is a label."""

    EXHAUSTED = "exhausted"
    AUTHENTICATION = "authentication"
    STARTING_UP = "starting_up"
    TIMEOUT = "timeout"
    NETWORK = "network"
    PRIVILEGE = "privilege"
    PROTOCOL = "protocol"
    OTHER = "other"


class Scope(StrEnum):
    """What a limit on connections belongs to."""

    SERVER = "server"
    ROLE = "role"
    DATABASE = "database"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A look that saw nothing."""

    reason: Reason
    #: One line for a human, free of secrets.
    detail: str = ""
    #: With `exhausted`: whose slots are all in use. None when the server did not say.
    exhausted_scope: Scope | None = field(default=None)
