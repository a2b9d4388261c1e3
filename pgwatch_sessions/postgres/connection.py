"""The one session that we hold on a server. It is opened once, kept for life, and replaced when it breaks.

A monitor that connects at each poll cannot see a server whose slots are all in use, and that is when it is needed.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgwatch_sessions.core.model import Failure, FailureReason, ServerInfo, Snapshot
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.postgres.connecting import Connector, server_limit
from pgwatch_sessions.postgres.errors import failure_of
from pgwatch_sessions.postgres.hosts import Connected
from pgwatch_sessions.postgres.login import NoPostgresError
from pgwatch_sessions.postgres.roles import has_role
from pgwatch_sessions.postgres.rows import SeenSession, asked_of, decoded, server_of, sessions_of, snapshot_of
from pgwatch_sessions.postgres.sql_files import sql
from pgwatch_sessions.postgres.target import Target

#: Limits are read again after this time. Those of the server itself change only with a restart, which ends the session.
_LIMITS_SECONDS = 30.0
#: After so many polls whose answer did not arrive in time, statement texts are left out.
_MOST_INTERRUPTED = 2
#: A goodbye that takes longer than this is not waited for, and the socket is closed.
_CLOSE_SECONDS = 0.5


class HeldConnection:
    """At most one connection to one server, and the polls through it.

    A poll ends by its deadline, and the server has one that is shorter. If a poll runs out of time

    * while a query is unanswered, the connection is dropped without a goodbye, which a dead server would not answer;
    * while a connect is unanswered, the connect is kept and the next poll waits for it. See PendingConnect.

    So at most two backends of ours exist: one that we dropped and that has not noticed yet, or a connect that is kept
    while another host is polled, and one that is connected or connecting. See Hosts.
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
        self._role = target.role
        self._timeout = timeout
        self._parse = parse
        self._connector = Connector(target, jitter=jitter)
        self._open: _Open | None = None
        #: How often a session was opened.
        self.connects = 0
        #: How many polls in a row ran out of time while their answer arrived.
        self._interrupted = 0
        #: What was raised in the last poll, if a server's answer was not understood.
        self.surprise: Exception | None = None

    @property
    def reads_texts(self) -> bool:
        """Whether polls read the texts of statements. They do not if the link is too slow for those.

        Without them it stays until the session ends for another reason.
        """
        return self._interrupted < _MOST_INTERRUPTED

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
        self.surprise = None
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                return await self._poll()
        except asyncio.CancelledError:
            self.drop()  # the statement may still be running, and only a dropped connection ends it
            raise
        except Exception as error:  # noqa: BLE001  the driver raises anything when a server sends nonsense
            return self._failed(error, timed_out=isinstance(error, TimeoutError) and deadline.expired())

    async def _poll(self) -> Snapshot:
        """Poll over the open session if its server has the role that is asked for, else over one that has."""
        if self._open is not None and not self._open.connection.is_closed():
            await self._open.set_deadline(self._timeout)
            snapshot = await self._read(self._open)
            if await has_role(self._open.connection, self._role):
                return snapshot
            self._connector.left(self._open.host)
        if self._open is not None:
            self._interrupted = 0
            self.drop()
        connected = await self._connector.connected(self._timeout)
        try:
            self._open = await _prepared(connected)
        except BaseException:
            connected.connection.terminate()
            self._connector.dropped(connected.host)
            raise
        self.connects += 1
        return await self._read(self._open)

    async def _read(self, opened: "_Open") -> Snapshot:
        snapshot = await opened.poll(self._parse, texts=self.reads_texts)
        if self.reads_texts:
            self._interrupted = 0
        return snapshot

    def _failed(self, error: Exception, *, timed_out: bool) -> Failure:
        """Say why the poll failed, and leave a session that cannot be used any more."""
        if self._open is None:
            error, doing = self._connector.explained(error, timed_out=timed_out)
            return self._failure(error, doing, lost=False)
        lost = self._open.connection.is_closed()
        arrived = self._open.arrived() if timed_out else 0
        if timed_out:
            self._connector.dropped(self._open.host, silent=not arrived)
            error = TimeoutError(_too_slow(arrived) if arrived else "the server has not answered yet")
        if lost or not isinstance(error, asyncpg.PostgresError):
            self._interrupted = self._interrupted + 1 if arrived else 0
            self.drop()  # after an error that the server itself reports, the session is as good as before
        return self._failure(error, "polling", lost=lost)

    def _failure(self, error: Exception, doing: str, *, lost: bool) -> Failure:
        failure = failure_of(error, doing=doing, lost=lost)
        is_understood = isinstance(error, asyncpg.PostgresError | NoPostgresError)
        self.surprise = error if failure.reason is FailureReason.PROTOCOL and not is_understood else None
        return failure

    def drop(self) -> None:
        """Close the socket of an open connection without a goodbye."""
        if self._open is not None:
            self._open.connection.terminate()
        self._open = None

    async def close(self) -> None:
        """End the session with a goodbye, or without one if the server does not answer."""
        await self._connector.abandon()
        if self._open is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._open.connection.close()
            except Exception:  # noqa: BLE001  whatever is wrong with it, it is not needed any more
                self.drop()
        self._open = None


class _Open:
    """An open connection, its prepared statement, and what the next polls can use again."""

    def __init__(self, connected: Connected, statement: PreparedStatement) -> None:
        self.connection = connected.connection
        self.host = connected.host
        self._dialer = connected.dialer
        self._asked_at = 0
        self._deadline = connected.session_timeout
        self._statement = statement
        self._seen: Mapping[int, SeenSession] = {}
        self._server: ServerInfo | None = None
        self._server_until = 0.0

    async def poll(self, parse: Callable[[str | None], Statement], *, texts: bool) -> Snapshot:
        """Read everything in one round trip: the limits of the server now and then, the rest always."""
        server = self._server if time.monotonic() < self._server_until else None
        self._asked_at = self._dialer.received
        rows = await self._statement.fetch(server is None, texts)
        own, asked = asked_of(rows)
        if server is None:
            self._server = server = server_of(asked["server"])
            self._server_until = time.monotonic() + _LIMITS_SECONDS
        self._seen = sessions_of(rows, self._seen, parse=parse)
        return snapshot_of(self._seen.values(), own, asked, server)

    def arrived(self) -> int:
        """Return how many bytes of the answer have arrived."""
        return self._dialer.received - self._asked_at

    def forget(self) -> None:
        """Make all sessions of the next poll anew, because statements are parsed in another way now."""
        self._seen = {}

    async def set_deadline(self, deadline: float) -> None:
        """Let the server end each statement of this session before `deadline` seconds, if that is not so already."""
        if deadline != self._deadline:
            await self.connection.fetch(sql("deadline"), server_limit(deadline))
            self._deadline = deadline


async def _prepared(connected: Connected) -> _Open:
    """Prepare the statement of a poll, in one round trip."""
    for name in ("text", "name"):  # the driver knows these types, and does not ask the server about them
        await connected.connection.set_type_codec(
            name, schema="pg_catalog", encoder=str.encode, decoder=decoded, format="binary"
        )
    return _Open(connected, await connected.connection.prepare(sql("poll"), name="poll"))


def _too_slow(arrived: int) -> str:
    return f"the answer has not arrived as a whole, only {arrived / 1000:.0f} kB of it; is the link slow?"
