"""The hosts of a connection string: which one to connect to next, and how long to wait for it.

libpq tries them one after the other, each for connect_timeout. Here the time of a poll is divided among them. The host
that worked last is the first to be tried. One that has accepted a connect and stays silent is waited for in the
background while the next one is tried, because it may be the one that comes back (see PendingConnect).

At most two connections of ours may have a backend at any moment, whatever their hosts. So a third connect is not begun
while two wait, or while one waits and a session that we dropped on another host may still have its backend. On the same
host it has none any more when the connect gets one: a server that does the one has done the other.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg

from pgwatch_sessions.postgres.dialer import Dialer
from pgwatch_sessions.postgres.pending_connect import PendingConnect
from pgwatch_sessions.postgres.unreachable import UnreachableError, none_reachable

#: So many connections of ours may have a backend.
_MOST = 2
#: The backend of a session that we dropped without an answer may live for so many seconds. If the network swallows our
#: packets, TCP keepalive ends it earlier. If its host is frozen, it ends when the host goes on.
_LINGERING_SECONDS = 60.0


class Host(NamedTuple):
    """A host of the connection string: a name, an address, or the folder of a socket."""

    name: str
    port: int


#: None leaves the choice to the driver: libpq's usual sockets, then localhost.
AnyHost = Host | None


class Connected(NamedTuple):
    """A connection that was made."""

    host: AnyHost
    connection: asyncpg.Connection
    dialer: Dialer
    #: The deadline that the session was given, in seconds.
    session_timeout: float


class Hosts:
    """The hosts of one connection string, and the connects that wait for an answer."""

    def __init__(self, hosts: Sequence[Host], begin: Callable[[AnyHost, float], PendingConnect]) -> None:
        """`begin` starts a connect to a host, and gives it so many seconds for the TCP handshake."""
        self.order: list[AnyHost] = [*hosts] or [None]
        self.pending: dict[AnyHost, PendingConnect] = {}
        self._begin = begin
        self._lingering: AnyHost = None
        self._lingering_until = 0.0

    def forget_failed(self) -> None:
        """Forget the connects that failed, or were closed, since the last search. The others are wanted again."""
        self.pending = {host: pending for host, pending in self.pending.items() if pending.goes_on_if_wanted()}

    def search(self, seconds: float, *, patient: bool) -> "Search":
        """Return a search among all hosts that divides so many seconds among them.

        If it is `patient`, it goes on waiting for all that are silent after that.
        """
        return Search(self, share=seconds / len(self.order), patient=patient)

    def begin(self, host: AnyHost, share: float) -> bool:
        """Connect to this host, or go on with a connect to it. Return False if there are too many connections."""
        busy = {*self.pending, *([self._lingering] if time.monotonic() < self._lingering_until else [])}
        if host not in self.pending and len(busy - {host}) < _MOST:
            self.pending[host] = self._begin(host, share)
        return host in self.pending

    def found(self, host: AnyHost) -> None:
        """Begin with this host from now on. Other connects are not wanted any more."""
        self.order.sort(key=lambda each: each != host)
        for pending in self.pending.values():
            pending.leave()

    def left(self, host: AnyHost) -> None:
        """Try this host last from now on."""
        self.order.sort(key=lambda each: each == host)

    def dropped(self, host: AnyHost) -> None:
        """Remember that a session on this host was closed without an answer."""
        self._lingering = host
        self._lingering_until = time.monotonic() + _LINGERING_SECONDS

    async def abandon(self) -> None:
        """End all connects at once."""
        await asyncio.gather(*(pending.abandon() for pending in self.pending.values()))
        self.pending.clear()


class Search:
    """One walk over the hosts."""

    def __init__(self, hosts: Hosts, *, share: float, patient: bool) -> None:
        self._hosts = hosts
        self._patient = patient
        self._share = share
        self._untried = list(hosts.order)
        self._failures: list[tuple[PendingConnect, Exception]] = []
        self._blamed: PendingConnect | None = None

    async def next(self) -> Connected | None:
        """Return the next connection, waiting for each host for its share; None if no host is left.

        Raises what a server answers to our login, as libpq does, except that it is starting up.
        """
        while self._untried or (self._patient and self._hosts.pending):
            host = self._untried.pop(0) if self._untried else next(iter(self._hosts.pending))
            if self._hosts.begin(host, self._share):
                try:
                    async with asyncio.timeout(self._share if self._untried or not self._patient else None):
                        if connected := await self._until_ended(host):
                            return connected
                except TimeoutError:  # it is silent: try the next one
                    pass
        return None

    def waits_for(self) -> str | None:
        """Return what has not happened yet, and what failed before; None if no connect goes on."""
        pending = self._hosts.pending
        if len(self._hosts.order) == 1:
            self._blamed = next(iter(pending.values()), None)
            return self._blamed.waits_for if self._blamed else None
        waits = [
            f"{each.dialer.host}: {each.waits_for}" if each.dialer.accepted else each.waits_for
            for each in pending.values()
        ]
        return "; ".join([*waits, *self.problems]) if waits else None

    @property
    def where(self) -> str | None:
        """The host that the failure is about, if others were tried too."""
        dialer = self._blamed.dialer if self._blamed else None
        several = len(self._hosts.order) > 1 or (dialer and dialer.problems)
        return dialer.host if dialer and dialer.accepted and several else None

    def failure(self) -> Exception:
        """Return why no host gave a connection: what a host answered, or why none can be reached."""
        for pending, error in self._failures:
            if not isinstance(error, OSError) or len(self._failures) == 1:
                self._blamed = pending
                return error
        silent = all(isinstance(error, TimeoutError) for _, error in self._failures)
        return (TimeoutError if silent else UnreachableError)(none_reachable(self.problems))

    @property
    def problems(self) -> list[str]:
        """Why hosts could not be reached."""
        return [problem for pending, _ in self._failures for problem in pending.dialer.problems]

    async def _until_ended(self, host: AnyHost) -> Connected | None:
        """Wait until the connect to this host has ended. Return the first connection, to whichever host."""
        pending = self._hosts.pending
        while host in pending:
            await asyncio.wait({each.task for each in pending.values()}, return_when=asyncio.FIRST_COMPLETED)
            for each in [each for each, connect in pending.items() if connect.task.done()]:
                ended = pending.pop(each)
                try:
                    return Connected(each, ended.task.result(), ended.dialer, ended.session_timeout)
                except Exception as error:
                    if _ends_a_search(error):
                        self._blamed = ended
                        raise
                    self._failures.append((ended, error))
        return None


def _ends_a_search(error: Exception) -> bool:
    """Tell whether a server answered our login with an error other than that it is starting up or going away."""
    goes_on = asyncpg.CannotConnectNowError | asyncpg.PostgresConnectionError
    return isinstance(error, asyncpg.PostgresError) and not isinstance(error, goes_on)
