"""How many connections a pool needs: the load decides, not the number of workers.

Each request has a connection for `hold` seconds, so on average `rate * hold` connections are in use (Little's law).
Requests do not arrive evenly: a pool of just that size lets most of them wait. The headroom is twice the square root of
that number. With it, at most one request in eight waits for a connection if requests arrive independently.
"""

from dataclasses import dataclass
from math import ceil, sqrt

#: With a single connection, one slow query would stop the whole process.
_LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSize:
    """The size for the pool of each process."""

    processes: int
    #: Connections in use in one process, on average.
    busy: float
    #: The connections of one process that the load needs, and those that the limit allows.
    needed: int
    allowed: int

    @property
    def size(self) -> int:
        """The most connections of one process. For SQLAlchemy, `pool_size` and `max_overflow` together."""
        return min(self.needed, self.allowed)

    @property
    def total(self) -> int:
        """The connections of all processes, if each opens its whole pool."""
        return self.processes * self.size

    @property
    def is_enough(self) -> bool:
        """Whether the limit allows what the load needs. If not, requests wait or time out at the peak."""
        return self.needed <= self.allowed


def size_for(rate: float, hold: float, processes: int, limit: int) -> PoolSize:
    """Return the size for the pool of each process.

    `rate` is the requests per second of all processes together, at their peak. `hold` is the seconds between taking a
    connection and returning it. `limit` is how many connections the application may have: the limit of its role, or
    `max_connections` without the reserved ones and those of others.

        >>> size_for(rate=200, hold=0.025, processes=4, limit=97).size
        4

    ValueError if a number is negative, or if the limit has less than one connection for each process.
    """
    if rate < 0 or hold < 0 or processes < 1:
        raise ValueError(
            f"rate {rate:g}, hold {hold:g}, processes {processes}: "
            "rate and hold must be at least 0, and processes at least 1"
        )
    if limit < processes:
        raise ValueError(
            f"a limit of {limit} is less than one connection for each of {processes} processes: "
            "start fewer processes, raise the limit, or use a pooler such as PgBouncer"
        )
    busy = rate * hold / processes
    needed = max(_LEAST, ceil(busy + 2 * sqrt(busy)))
    return PoolSize(processes=processes, busy=busy, needed=needed, allowed=limit // processes)
