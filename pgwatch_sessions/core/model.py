"""What one poll returns, as values: a Snapshot of the sessions, or a Failure.

All times are seconds since the Unix epoch by the clock of the polled server. A float keeps microseconds exactly until
the year 2255. None means "not known", never zero.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pgwatch_sessions.core.statements import Statement

#: The application_name of our own sessions: the daemon's, and those of other daemons and of `check`.
OWN_APPLICATION = "pgwatch-sessions"
#: The label of a database, user or application without a name.
NONE = "(none)"
#: The label that everything beyond a label budget shares.
OTHER = "other"

#: The first moment of the year 3000, in seconds since the epoch. Times from outside lie between it and the epoch.
END_OF_TIME = 32_503_680_000.0


class SessionState(StrEnum):
    """The values of `pg_stat_activity.state` in PostgreSQL 14 to 18."""

    ACTIVE = "active"
    IDLE = "idle"
    IDLE_IN_TRANSACTION = "idle in transaction"
    ABORTED = "idle in transaction (aborted)"
    FASTPATH = "fastpath function call"
    #: The session is authenticating: it uses a slot but has no database yet. Before PostgreSQL 18 its state is NULL.
    STARTING = "starting"
    #: `track_activities` is off in that session.
    DISABLED = "disabled"


#: A transaction is open and no statement runs.
IDLE_IN_TRANSACTION_STATES = frozenset({SessionState.IDLE_IN_TRANSACTION, SessionState.ABORTED})

#: `wait_event_type` of a session that waits for a heavyweight lock.
LOCK_WAIT = "Lock"


class SessionId(NamedTuple):
    """Identifies a session. A pid alone does not: the operating system uses it again."""

    pid: int
    backend_start: float | None


class Client(NamedTuple):
    """Who owns a connection pool, and so who can leak: an application as one user in one database."""

    database: str
    user: str
    application: str

    @property
    def short_name(self) -> str:
        """Its application, or `user@database` if it has no application_name."""
        return f"{self.user}@{self.database}" if self.application == NONE else self.application


#: Roles of managed services. Their sessions stay hidden from every customer's role, whatever is granted.
_SERVICE_USERS = frozenset(
    {"alloydbadmin", "azure_superuser", "azuresu", "cloudsqladmin", "cloudsqlagent", "rdsadmin", "rdsproxyadmin"}
)

#: All clients beyond the label budget together.
OTHER_CLIENT = Client(OTHER, OTHER, OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One client backend at one poll."""

    id: SessionId
    client: Client
    #: An IP address; None on a Unix socket or when hidden.
    client_addr: str | None
    #: -1 on a Unix socket.
    client_port: int | None
    #: None when the monitoring role may not see the state: the session is *hidden*.
    state: SessionState | None
    #: When the session entered its state. This is the only time that an aborted transaction has.
    state_change: float | None
    xact_start: float | None
    query_start: float | None
    wait_event_type: str | None
    wait_event: str | None
    #: Ages in transactions: of its transaction id, and of its snapshot, which holds back vacuum.
    backend_xid_age: int | None
    backend_xmin_age: int | None
    #: Pids of the sessions that this one waits for. Known only for the sessions that have waited longest.
    blocked_by: tuple[int, ...]
    statement: Statement

    @property
    def is_hidden(self) -> bool:
        """Whether the monitoring role may not see its state, and a GRANT would show it."""
        return self.state is None and self.client.user not in _SERVICE_USERS


class ConnectionLimit(NamedTuple):
    """The CONNECTION LIMIT of a role or a database."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The version, state and limits of the server."""

    version_num: int | None = None
    in_recovery: bool | None = None
    #: When the postmaster started. After a restart every session is new.
    started_at: float | None = None
    max_connections: int | None = None
    superuser_reserved_connections: int = 0
    #: PostgreSQL 16 and newer.
    reserved_connections: int = 0
    role_limits: tuple[ConnectionLimit, ...] = ()
    database_limits: tuple[ConnectionLimit, ...] = ()

    @property
    def ordinary_slots(self) -> int | None:
        """The slots that ordinary roles share: all but the reserved ones."""
        if self.max_connections is None:
            return None
        return self.max_connections - self.superuser_reserved_connections - self.reserved_connections


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCounters:
    """Session counters from `pg_stat_database`. Each grows until the statistics are reset."""

    database: str
    established: int
    #: Sessions that ended because the client vanished; by a fatal error; by an operator.
    abandoned: int
    fatal: int
    killed: int
    session_seconds: float
    active_seconds: float
    idle_in_transaction_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one successful poll returned."""

    #: The server's `clock_timestamp()`, read after the sessions.
    taken_at: float
    server: ServerInfo
    #: All client backends except our own session.
    sessions: tuple[Session, ...]
    #: Role and database of our own session, which uses a slot; None in a recording.
    own_user: str | None = None
    own_database: str | None = None
    databases: tuple[DatabaseCounters, ...] = ()


class FailureReason(StrEnum):
    """Why a poll failed. A closed set, because it is a metric label."""

    #: The server is full.
    EXHAUSTED = "exhausted"
    #: The CONNECTION LIMIT of our own role or database is reached. The server may have free slots.
    OWN_LIMIT = "own_limit"
    AUTHENTICATION = "authentication"
    STARTING_UP = "starting_up"
    TIMEOUT = "timeout"
    NETWORK = "network"
    #: Servers let us in, but none of them has the role that target_session_attrs asks for.
    WRONG_ROLE = "wrong_role"
    PRIVILEGE = "privilege"
    PROTOCOL = "protocol"
    OTHER = "other"


class LimitScope(StrEnum):
    """What a limit on connections applies to."""

    SERVER = "server"
    ROLE = "role"
    DATABASE = "database"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A poll that failed."""

    reason: FailureReason
    #: One line for a person, without secrets.
    detail: str = ""
    #: For the reasons `exhausted` and `own_limit`: whose slots are all in use. None when the server did not say.
    exhausted_scope: LimitScope | None = field(default=None)
