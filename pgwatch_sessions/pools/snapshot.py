"""The numbers of a pool at one time."""

from dataclasses import dataclass

from pgwatch_sessions.pools.histogram import Durations


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pool is configured for; None where it has no such limit or does not say."""

    max: int | None = None
    idle_max: int | None = None
    idle_min: int | None = None
    #: Connections above this number are overflow, which is closed when it comes back.
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """A pool's numbers at one time. Counts are since the pool was instrumented, or since the process was forked."""

    name: str
    #: The library and the class of the pool, such as `sqlalchemy QueuePool`.
    kind: str
    #: Connections that are out.
    used: int
    #: Open connections that are not out.
    idle: int
    #: Calls that wait for a connection.
    pending: int
    #: Open connections above the size of the pool; None if the pool has no overflow.
    overflow: int | None
    limits: Limits
    timed_out: int
    cancelled_waits: int
    failed_waits: int
    #: Connections that the garbage collector returned, because the borrower did not.
    collected: int
    detached: int
    #: Detached connections that are still open.
    detached_open: int
    create_time: Durations
    wait_time: Durations
    use_time: Durations
