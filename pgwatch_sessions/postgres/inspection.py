"""One look at a server, at our role there and at our session, for a person who sets up the monitoring."""

import asyncio
import time
from dataclasses import dataclass

from pgwatch_sessions.core.model import Failure
from pgwatch_sessions.postgres.connecting import Connector
from pgwatch_sessions.postgres.errors import failure_of
from pgwatch_sessions.postgres.sql_files import sql
from pgwatch_sessions.postgres.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found. The fields up to `connect_seconds` are the columns of inspection.sql."""

    #: `16.14`, with the packager's additions.
    version: str
    version_num: int
    in_recovery: bool
    role: str
    database: str
    #: Of the backend that ran the statement.
    pid: int
    #: None on a Unix socket.
    server_address: str | None
    encrypted: bool
    tls_version: str | None
    tls_cipher: str | None
    superuser: bool
    #: Whether the role may see the state of all sessions.
    reads_all_stats: bool
    #: -1 if the role has no CONNECTION LIMIT.
    role_limit: int
    #: Whether the role may use the slots of reserved_connections.
    uses_reserved: bool
    max_connections: int
    superuser_reserved_connections: int
    reserved_connections: int
    #: track_activity_query_size in bytes.
    query_size: int
    track_activities: bool
    #: Client sessions, our own included: all, those of our role, without application_name, with track_activities off.
    sessions: int
    role_sessions: int
    unnamed_sessions: int
    untracked_sessions: int
    connect_seconds: float
    #: The pid that the server named when we logged in. A pooler invents one.
    greeted_pid: int


async def inspect(target: Target, *, timeout: float) -> Inspection | Failure:  # noqa: ASYNC109  # it also bounds the server
    """Connect as a poll does, look once, and leave. Whatever goes wrong is a Failure."""
    started = time.monotonic()
    connector = Connector(target, jitter=lambda _: 0.0)
    connected = None
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            connected = await connector.connected(timeout)
            seconds = time.monotonic() - started
            greeted_pid = connected.connection.get_server_pid()
            row = await connected.connection.fetchrow(sql("inspection"))
    except Exception as error:  # noqa: BLE001  # the driver raises anything when a server sends nonsense
        timed_out = isinstance(error, TimeoutError) and deadline.expired()
        explained, doing = connector.explained(error, timed_out=timed_out)
        return failure_of(explained, doing="asking" if connected else doing, lost=False)
    finally:
        await connector.abandon()
        if connected:
            connected.connection.terminate()
    if row is None:
        return failure_of(LookupError("no row about our own role"), doing="asking", lost=False)
    return Inspection(**dict(row), connect_seconds=seconds, greeted_pid=greeted_pid)
