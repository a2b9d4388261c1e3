"""A connect that goes on until the server answers, however many polls that takes.

While `pg_authid` or `pg_database` is locked, nobody can log in: a new backend waits in start-up, and does not notice
when its client goes away. If each poll gave up and connected again, each would leave one more backend on the server, in
slots that nobody else can use. A frozen server is no better: each connect of ours would wait in its queue. So a poll
that runs out of time leaves the connect as it is, and the next poll goes on waiting for it.

How long may that take? Nobody knows how long a lock is held, so it depends on what the network says about the host:

* A host that does not complete the TCP handshake has no backend of ours. It is given up after its part of a poll's
  time.
* A host that has completed the handshake is waited for as long as its kernel acknowledges our packets, which it does
  while a backend waits or is frozen. If the host is gone, or a firewall swallows our packets, TCP keepalive ends the
  connection after about 30 s, and the next poll connects again.
* A program in between, such as a TCP proxy, may acknowledge packets that never reach the server. Nothing tells that
  apart from a lock, so a connect is given up after ten minutes at the latest.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg

from pgwatch_sessions.postgres.dialer import Dialer
from pgwatch_sessions.postgres.unreachable import UnreachableError, none_reachable

#: After this many seconds a connect that was accepted and never answered is given up.
LONGEST_SECONDS = 600.0
#: How many seconds leaving may take. It needs no answer from the server.
_LEAVING_SECONDS = 0.5


class PendingConnect:
    """One connect to one server, in a task of its own, from its beginning until it has succeeded or failed.

    Its owner must take the result, abandon it, or leave it.
    """

    def __init__(
        self, dialer: Dialer, connect: Callable[[], Coroutine[Any, Any, asyncpg.Connection]], *, session_timeout: float
    ) -> None:
        """Start `connect`, which uses the dialer, and gives the session a deadline of `session_timeout` seconds."""
        self.dialer = dialer
        self.session_timeout = session_timeout
        self._wanted = True
        #: Wait for it with asyncio.wait, which does not cancel it when the wait is cancelled.
        self.task = asyncio.create_task(self._run(connect))
        self.task.add_done_callback(lambda _: self._close_if_unwanted())

    @property
    def waits_for(self) -> str:
        """What has not happened yet, for the person who reads why a poll failed."""
        if not self.dialer.accepted:
            return f"{self.dialer.host} does not answer"
        return "the server has accepted the connection and has not answered yet; the next poll goes on waiting"

    def goes_on_if_wanted(self) -> bool:
        """Ask for the connection, if it has not failed and was not closed. Return whether it may still be given."""
        if self.task.done() and (self._failed() or not self._wanted):
            return False
        self._wanted = True
        return True

    def leave(self) -> None:
        """Close the connection as soon as the server answers. Until then nobody else may connect in its place."""
        self._wanted = False
        self._close_if_unwanted()

    async def abandon(self) -> None:
        """End it at once, without a goodbye to the server."""
        self._wanted = False
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=_LEAVING_SECONDS)
        self._close_if_unwanted()

    def _failed(self) -> bool:
        """Return whether it has failed. This counts as having heard of the error."""
        return self.task.cancelled() or self.task.exception() is not None

    def _close_if_unwanted(self) -> None:
        if self.task.done() and not self._failed() and not self._wanted:
            self.task.result().terminate()

    async def _run(self, connect: Callable[[], Coroutine[Any, Any, asyncpg.Connection]]) -> asyncpg.Connection:
        try:
            return await connect()
        except (UnreachableError, TimeoutError) as error:
            self.dialer.abort()
            if len(self.dialer.problems) < 2:
                raise
            raise type(error)(none_reachable(self.dialer.problems)) from error
        except BaseException as error:
            # asyncpg closes the socket politely, which over TLS waits for the other side, or not at all if the server's
            # greeting makes no sense.
            self.dialer.abort()
            # A password that was rejected over TLS is the better answer, if the driver then tried without TLS.
            if self.dialer.refused is not None and not isinstance(error, asyncpg.InvalidPasswordError):
                raise self.dialer.refused from error
            raise
