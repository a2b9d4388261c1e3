"""Connecting: to the first host that answers and has the role that is asked for, with a session that is bounded."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from pgwatch_sessions.core.model import OWN_APPLICATION
from pgwatch_sessions.postgres.dialer import Dialer
from pgwatch_sessions.postgres.errors import (
    ConnectionParametersError,
    PasswordMissingError,
    PasswordUnreadableError,
)
from pgwatch_sessions.postgres.hosts import AnyHost, Connected, Hosts, Search
from pgwatch_sessions.postgres.names import Names
from pgwatch_sessions.postgres.pending_connect import LONGEST_SECONDS, PendingConnect
from pgwatch_sessions.postgres.roles import NoHostWithRoleError, has_role, is_about_writing, preferences
from pgwatch_sessions.postgres.target import Target

APPLICATION_NAME = OWN_APPLICATION

#: The server ends a statement after this part of the poll's time. So a slow statement does not cost the session.
_SERVER_SHARE = 0.8
_READ_ONLY = "default_transaction_read_only"


class Connector:
    """Connects to one target, from poll to poll."""

    def __init__(self, target: Target, *, jitter: Callable[[float], float]) -> None:
        """`jitter(limit)` returns a number between 0 and the limit."""
        self._target = target
        self._jitter = jitter
        self._names = Names()
        self._hosts = Hosts(target.hosts, self._begin)
        self._timeout = 0.0
        self._search: Search | None = None
        self._refusals = 0

    async def connected(self, timeout: float) -> Connected:  # noqa: ASYNC109  # it also bounds the server
        """Return a connection to a host that has the role. A search ends after `timeout` seconds, by its caller.

        After a refusal a new connect waits for a moment: the longer and the more scattered, the more refusals there
        were, so that many daemons do not connect at the same instant. It waits for a quarter of the poll's time at the
        most, so that the first poll after a recovery succeeds.
        """
        self._timeout = timeout
        self._hosts.forget_failed()
        if not self._hosts.pending:
            if self._refusals:
                await asyncio.sleep(self._jitter(min(0.1 * 2 ** min(self._refusals, 10), timeout / 4)))
            self._refusals += 1
        *preferred, role = preferences(self._target.role)
        seconds = timeout / (1 + len(preferred))
        others: list[str] = []
        for better in preferred:
            if found := await self._first_with(better, self._hosts.search(seconds, patient=False), others):
                return found
            others.clear()
        search = self._hosts.search(seconds, patient=True)
        if found := await self._first_with(role, search, others):
            return found
        raise NoHostWithRoleError(role, others, search.problems) if others else search.failure()

    async def _first_with(self, role: str, search: Search, others: list[str]) -> Connected | None:
        """Return the first connection to a host with the role, if there is one; add hosts without it to `others`."""
        self._search = search
        while found := await search.next():
            try:
                if await has_role(found.connection, role):
                    if is_about_writing(role):
                        await found.connection.execute(f"SET {_READ_ONLY} = on")
                    self._hosts.found(found.host)
                    self._refusals = 0
                    return found
            except BaseException:
                found.connection.terminate()
                self.dropped(found.host)
                raise
            found.connection.terminate()
            others.append(found.dialer.host)
        return None

    def explained(self, error: Exception, *, timed_out: bool) -> tuple[Exception, str]:
        """Return why `connected` failed, and what it was doing, for a person. `timed_out` by its caller."""
        if timed_out:
            waits_for = self._search.waits_for() if self._search else None
            error = TimeoutError(waits_for or "the server has not answered yet")
        where = self._search.where if self._search else None
        return error, f"connecting to {where}" if where else "connecting"

    def left(self, host: AnyHost) -> None:
        """Try this host last: it lost the role."""
        self._hosts.left(host)

    def dropped(self, host: AnyHost, *, silent: bool = True) -> None:
        """Remember that this host may not have noticed that we dropped a session. If it was silent, try it last."""
        if silent:
            self._hosts.left(host)
        self._hosts.dropped(host)

    async def abandon(self) -> None:
        """End all connects at once."""
        await self._hosts.abandon()

    def _begin(self, host: AnyHost, share: float) -> PendingConnect:
        dialer, timeout = Dialer(share, self._names, self._target.login), self._timeout
        return PendingConnect(dialer, lambda: connect(self._target, timeout, dialer, host), session_timeout=timeout)


async def connect(target: Target, deadline: float, dialer: Dialer, host: AnyHost = None) -> asyncpg.Connection:
    """Open a session that is read only, and in which the server ends each statement before `deadline` seconds.

    That is a poll's deadline. The connect itself may take longer than a poll: see PendingConnect.
    """
    named: dict[str, Any] = {"host": host.name, "port": host.port} if host else {}
    settings = _session_settings(deadline)
    if is_about_writing(target.role):
        del settings[_READ_ONLY]
    try:
        password = target.password() if target.password else None
    except OSError as error:
        raise PasswordUnreadableError(str(error)) from error
    try:
        return await asyncpg.connect(
            target.dsn,
            password=password,
            loop=dialer.loop,
            timeout=LONGEST_SECONDS,
            statement_cache_size=0,
            server_settings=settings,
            target_session_attrs=SessionAttribute.any,
            **named,
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


def server_limit(deadline: float) -> str:
    """Return how long the server lets a statement of ours run, as a value of statement_timeout."""
    return f"{max(1, round(_SERVER_SHARE * deadline * 1000))}ms"


def _session_settings(deadline: float) -> dict[str, str]:
    """Return the settings of our own session: read only, bounded, and without temporary files."""
    limit = server_limit(deadline)
    return {
        "application_name": APPLICATION_NAME,
        # Names and statements are stored in the encodings of many databases. The server converts nothing to SQL_ASCII,
        # so no text can fail to convert; `decoded` makes the best of the bytes.
        "client_encoding": "SQL_ASCII",
        _READ_ONLY: "on",
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
