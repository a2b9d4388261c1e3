"""The one session that we hold on a server. It is opened once, kept for life, and replaced when it breaks.

A monitor that connects at each poll cannot see a server whose slots are all in use, and that is when it is needed.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgwatch_sessions.core.model import OWN_APPLICATION, Failure, Snapshot
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.postgres.errors import (
    ConnectionParametersError,
    PasswordMissingError,
    PasswordUnreadableError,
    failure_of,
)
from pgwatch_sessions.postgres.pending_connect import LONGEST_SECONDS, Dialer, PendingConnect
from pgwatch_sessions.postgres.rows import SeenSession, decoded, sessions_of, snapshot_of

APPLICATION_NAME = OWN_APPLICATION

#: Limits are read again after this time. Those of the server itself change only with a restart, which ends the session.
_CAPACITY_SECONDS = 30.0
#: The server ends a statement after this part of the poll's time. So a slow statement does not cost the session.
_SERVER_SHARE = 0.8
#: A goodbye that takes longer than this is not waited for, and the socket is closed.
_CLOSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a server is, and how to log in."""

    name: str
    #: A URI; None leaves everything to libpq's environment variables.
    dsn: str | None = field(default=None, repr=False)
    #: Called at each connect, so that a changed password is found. Raises OSError when it cannot be read.
    password: Callable[[], str] | None = field(default=None, repr=False)
    #: Whether the driver finds a password in the DSN, in PGPASSWORD or in libpq's password file.
    #: It follows from the DSN, so two targets that differ in this only are the same.
    has_password: Callable[[], bool] = field(default=lambda: True, repr=False, compare=False)


class HeldConnection:
    """At most one connection to one server, and the polls through it.

    A poll ends by its deadline, and the server has one that is shorter. If a poll runs out of time

    * while a query is unanswered, the connection is dropped without a goodbye, which a dead server would not answer;
    * while a connect is unanswered, the connect is kept and the next poll waits for it. See PendingConnect.

    So the server has at most two backends of ours: one that we dropped and that has not noticed yet, and one that is
    connected or connecting.
    """

    def __init__(
        self,
        target: Target,
        *,
        timeout: float,
        parse: Callable[[str | None], Statement],
        jitter: Callable[[float], float],
    ) -> None:
        """`timeout` is a poll's deadline in seconds; `jitter(limit)` returns a number between 0 and the limit."""
        self._target = target
        self._timeout = timeout
        self._parse = parse
        self._jitter = jitter
        self._pending: PendingConnect | None = None
        self._open: _Open | None = None
        self._refusals = 0
        #: How often a session was opened.
        self.connects = 0
        #: The deadline that the session, pending or open, was given. It differs after `adjust`.
        self._session_timeout = timeout

    def adjust(self, *, timeout: float, parse: Callable[[str | None], Statement]) -> None:
        """Poll with this deadline, and parse statements in this way, from the next poll on. The session stays."""
        if self._open is not None and parse is not self._parse:
            self._open.forget()
        self._timeout = timeout
        self._parse = parse

    async def poll(self) -> Snapshot | Failure:
        """Poll once; connect first if necessary.

        Whatever is raised while we talk to the server, or read its rows, is that server's failure. A server that sends
        nonsense must not end the daemon for all others.
        """
        doing = "polling"
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                if self._open is None or self._open.connection.is_closed():
                    doing = "connecting"
                    self._open = await self._reconnect()
                    doing = "polling"
                if self._session_timeout != self._timeout:
                    await self._open.set_deadline(self._timeout)
                    self._session_timeout = self._timeout
                return await self._open.poll(self._parse)
        except asyncio.CancelledError:
            self.drop()  # the statement may still be running, and only a dropped connection ends it
            raise
        except Exception as error:  # noqa: BLE001  the driver raises anything when a server sends nonsense
            lost = self._open is not None and self._open.connection.is_closed()
            if lost or not isinstance(error, asyncpg.PostgresError):
                self.drop()  # after an error that the server itself reports, the session is as good as before
            if isinstance(error, TimeoutError) and deadline.expired():
                error = TimeoutError(self._pending.waits_for if self._pending else "the server has not answered yet")
            if doing == "connecting" and self._pending and self._pending.host:
                doing = f"connecting to {self._pending.host}"
            return failure_of(error, doing=doing, lost=lost)

    async def _reconnect(self) -> "_Open":
        """Go on with the connect that is pending, or begin one, and prepare the session.

        After a refusal a new connect waits for a moment: the longer and the more scattered, the more refusals there
        were, so that many daemons do not connect at the same instant. It waits for a quarter of the poll's time at the
        most, so that the first poll after a recovery succeeds.
        """
        self.drop()
        if self._pending is None or self._pending.failed:
            self._pending = None
            if self._refusals:
                await asyncio.sleep(self._jitter(min(0.1 * 2 ** min(self._refusals, 10), self._timeout / 4)))
            self._refusals += 1
            self._session_timeout = self._timeout
            self._pending = PendingConnect(
                lambda dialer: connect(self._target, self._timeout, dialer), handshake_seconds=self._timeout
            )
        await self._pending.finished()
        connection, self._pending = self._pending.result(), None
        try:
            opened = await _prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        self._refusals = 0
        self.connects += 1
        return opened

    def drop(self) -> None:
        """Close the socket of an open connection without a goodbye."""
        if self._open is not None:
            self._open.connection.terminate()
        self._open = None

    async def close(self) -> None:
        """End the session with a goodbye, or without one if the server does not answer."""
        if self._pending is not None:
            await self._pending.abandon()
        if self._open is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._open.connection.close()
            except Exception:  # noqa: BLE001  whatever is wrong with it, it is not needed any more
                self.drop()
        self._pending = self._open = None


class _Open:
    """An open connection, its prepared statements, and what the next polls can use again."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        *,
        sessions: PreparedStatement,
        capacity: PreparedStatement,
        databases: PreparedStatement,
    ) -> None:
        self.connection = connection
        self._sessions = sessions
        self._capacity = capacity
        self._databases = databases
        self._seen: Mapping[int, SeenSession] = {}
        self._capacity_row: asyncpg.Record | None = None
        self._capacity_until = 0.0

    async def poll(self, parse: Callable[[str | None], Statement]) -> Snapshot:
        """Read the sessions in one round trip, the databases in another, and the limits now and then."""
        rows = await self._sessions.fetch()
        databases = await self._databases.fetch()
        if self._capacity_row is None or time.monotonic() >= self._capacity_until:
            (self._capacity_row,) = await self._capacity.fetch()
            self._capacity_until = time.monotonic() + _CAPACITY_SECONDS
        self._seen = sessions_of(rows, self._seen, parse=parse)
        return snapshot_of(self._seen.values(), self._capacity_row, databases)

    def forget(self) -> None:
        """Make all sessions of the next poll anew, because statements are parsed in another way now."""
        self._seen = {}

    async def set_deadline(self, deadline: float) -> None:
        """Let the server end each statement of this session before `deadline` seconds from now on."""
        await self.connection.fetch(sql("deadline"), _server_limit(deadline))


async def _prepare(connection: asyncpg.Connection) -> _Open:
    for name in ("text", "name"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str.encode, decoder=decoded, format="binary")
    return _Open(
        connection,
        sessions=await connection.prepare(sql("sessions")),
        capacity=await connection.prepare(sql("capacity")),
        databases=await connection.prepare(sql("databases")),
    )


def sql(name: str) -> str:
    """Return the text of one of the .sql files."""
    return resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


async def connect(target: Target, deadline: float, dialer: Dialer | None = None) -> asyncpg.Connection:
    """Open a session that is read only, and in which the server ends each statement before `deadline` seconds.

    That is a poll's deadline. The connect itself may take longer than a poll: see PendingConnect.
    """
    try:
        password = target.password() if target.password else None
    except OSError as error:
        raise PasswordUnreadableError(str(error)) from error
    dialer = dialer or Dialer(deadline)
    try:
        return await asyncpg.connect(
            target.dsn,
            password=password,
            loop=dialer.loop,
            timeout=LONGEST_SECONDS,
            statement_cache_size=0,
            server_settings=_session_settings(deadline),
        )
    except asyncpg.InvalidPasswordError as error:
        if password is None and not target.has_password():
            raise PasswordMissingError(
                "the server asks for a password, and none is given: set PGPASSWORD, add a line to ~/.pgpass, or name a "
                "file that holds it with --password-file"
            ) from error
        raise
    except (asyncpg.InterfaceError, OSError):  # a certificate that is refused is a ValueError as well
        raise
    except (ValueError, OverflowError):
        if dialer.accepted:  # then it is about something that the server sent
            raise
        raise ConnectionParametersError("the DSN, or a PG* variable, has an invalid host or port") from None


def _server_limit(deadline: float) -> str:
    return f"{max(1, round(_SERVER_SHARE * deadline * 1000))}ms"


def _session_settings(deadline: float) -> dict[str, str]:
    """Return the settings of our own session: read only, bounded, and without temporary files."""
    limit = _server_limit(deadline)
    return {
        "application_name": APPLICATION_NAME,
        # Names and statements are stored in the encodings of many databases. The server converts nothing to SQL_ASCII,
        # so no text can fail to convert; `decoded` makes the best of the bytes.
        "client_encoding": "SQL_ASCII",
        "default_transaction_read_only": "on",
        "statement_timeout": limit,
        "lock_timeout": limit,
        "idle_in_transaction_session_timeout": limit,
        "idle_session_timeout": "0",  # a role may have one; our session is idle between polls
        "tcp_user_timeout": limit,
        "tcp_keepalives_idle": "15",  # if our host is gone, the server notices within 30 s and frees the slot
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "work_mem": "32MB",  # the default of 4 MB is too little for thousands of sessions: it would use temporary files
        "jit": "off",
        "search_path": "pg_catalog",
    }
