"""Which connection gives way when HTTP clients hold too many, or when the process runs out of file descriptors.

If new connections were refused, 64 idle clients could keep Prometheus out. So the first to give way is the connection
that has waited longest without a request. Between two requests it is closed, as clients expect. Before its first
request it is turned away: kept beside the others until its request has come and is answered 503, because a client that
is reset does not know why. An answer that the client is taking may last a second. If all connections have such an
answer, the new one is turned away.

File descriptors: a new one is always the lowest that is free, so its number tells how many are in use. The last ones
below the limit of the process are kept for the connections to PostgreSQL and for files: a quarter of the limit, at most
64.
"""

import resource
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Protocol, TypeVar

import structlog

from pgwatch_sessions.logs import log_line
from pgwatch_sessions.wording.event_lines import http_refused_line

_MAX_KEPT_FREE = 64
#: Refusals for lack of descriptors are logged again if there were none for so many seconds.
_QUIET_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of the daemon clients can hold."""

    #: Seconds from the start of the connection, or from the last response, to the end of the next response.
    deadline: float = 10.0
    connections: int = 64
    #: Seconds within which an answer that the client is taking is not interrupted.
    young: float = 1.0
    #: Connections beside those, whose request will be answered 503.
    turned_away: int = 256
    #: The same with TLS, where a connection takes 256 KiB.
    turned_away_with_tls: int = 32


class Refused:
    """The connections of HTTP clients that were closed or turned away, for the metrics."""

    def __init__(self) -> None:
        self.counts = {"too_many": 0, "no_descriptors": 0}
        self._last = -_QUIET_SECONDS

    def no_descriptors(self, *, now: float) -> None:
        """Count one, and log the first of a while."""
        self.counts["no_descriptors"] += 1
        if now - self._last >= _QUIET_SECONDS:
            limit = _limit()
            log_line(structlog.get_logger(), "http_refused", http_refused_line(limit), {"descriptors": limit})
        self._last = now


class _Connection(Protocol):
    exchange_began: float

    @property
    def asked(self) -> bool: ...
    @property
    def answering(self) -> bool: ...
    def turn_away(self) -> None: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=_Connection)


class Crowd(Generic[C]):
    """The connections to one address."""

    def __init__(self, bounds: Bounds, refused: Refused, *, tls: bool) -> None:
        self.bounds = bounds
        self._max_turned_away = bounds.turned_away_with_tls if tls else bounds.turned_away
        self._refused = refused
        #: Ordered by the start of their exchange.
        self._served: dict[C, None] = {}
        #: Ordered by when they were turned away.
        self._turned_away: dict[C, None] = {}

    def connections(self) -> Collection[C]:
        """Return all connections, those that were turned away included."""
        return [*self._served, *self._turned_away]

    def began_exchange(self, connection: C) -> None:
        """Put the connection behind the others."""
        if connection not in self._turned_away:
            self._served.pop(connection, None)
            self._served[connection] = None

    def left(self, connection: C) -> None:
        """Forget a connection that is closed."""
        self._served.pop(connection, None)
        self._turned_away.pop(connection, None)

    def joined(self, connection: C, *, descriptor: int, now: float) -> None:
        """Make room if this new connection is one too many."""
        if _is_scarce(descriptor) and len(self._served) + len(self._turned_away) > 1:
            self._refused.no_descriptors(now=now)
            least = next(iter(self._turned_away), None) or self._least(connection, now)
            (self._turn_away if least is connection else self._close)(least)
        elif len(self._served) > self.bounds.connections:
            self._refused.counts["too_many"] += 1
            least = self._least(connection, now)
            (self._close if least.asked else self._turn_away)(least)

    def _least(self, newest: C, now: float) -> C:
        """Return the connection that gives way."""
        idle = (each for each in self._served if each is not newest and not each.answering)
        slow = (each for each in self._served if each.answering and now - each.exchange_began > self.bounds.young)
        return next(chain(idle, slow), newest)

    def _turn_away(self, connection: C) -> None:
        del self._served[connection]
        self._turned_away[connection] = None
        connection.turn_away()
        if len(self._turned_away) > self._max_turned_away:
            self._close(next(iter(self._turned_away)))

    def _close(self, connection: C) -> None:
        self.left(connection)
        connection.close()


def _limit() -> int:
    """Return how many file descriptors the process may have; -1 means any number."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _is_scarce(descriptor: int) -> bool:
    limit = _limit()
    return limit >= 0 and descriptor >= limit - min(_MAX_KEPT_FREE, limit // 4)
