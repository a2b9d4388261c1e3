"""The metrics of pools: OpenTelemetry's names for clients, and ours for what it has no name for."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from pgwatch_sessions.pools.histogram import Durations
from pgwatch_sessions.pools.instrument import PoolHandle
from pgwatch_sessions.pools.ledger import TimeKind
from pgwatch_sessions.pools.snapshot import PoolSnapshot

#: Attributes of OpenTelemetry. As labels in Prometheus, their dots are underscores.
POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
SITE = "site"

#: A further attribute's value, or None, and the number.
Values = Iterable[tuple[str | None, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMetric:
    """A number of each pool."""

    #: In OpenTelemetry's form: `db.client.connection.count`.
    name: str
    kind: Literal["gauge", "counter"]
    #: In OpenTelemetry's form: `{connection}`.
    unit: str
    help: str
    values: Callable[[PoolSnapshot], Values]
    #: The further attribute, if it has one.
    attribute: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTime:
    """A histogram of durations of each pool, in seconds."""

    name: str
    kind: TimeKind
    help: str
    values: Callable[[PoolSnapshot], Durations]


def _one(value: Callable[[PoolSnapshot], int | None]) -> Callable[[PoolSnapshot], Values]:
    def values(pool: PoolSnapshot) -> Values:
        number = value(pool)
        return () if number is None else ((None, number),)

    return values


METRICS = (
    PoolMetric(
        name="db.client.connection.count",
        kind="gauge",
        unit="{connection}",
        help="Open connections of the pool: used are checked out, idle are not.",
        values=lambda pool: (("used", pool.used), ("idle", pool.idle)),
        attribute=STATE,
    ),
    PoolMetric(
        name="db.client.connection.max",
        kind="gauge",
        unit="{connection}",
        help="The most connections that the pool may have open, overflow included.",
        values=_one(lambda pool: pool.limits.max),
    ),
    PoolMetric(
        name="db.client.connection.idle.max",
        kind="gauge",
        unit="{connection}",
        help="The most idle connections that the pool keeps.",
        values=_one(lambda pool: pool.limits.idle_max),
    ),
    PoolMetric(
        name="db.client.connection.idle.min",
        kind="gauge",
        unit="{connection}",
        help="The fewest connections that the pool keeps.",
        values=_one(lambda pool: pool.limits.idle_min),
    ),
    PoolMetric(
        name="db.client.connection.pending_requests",
        kind="gauge",
        unit="{request}",
        help="Calls that wait for a connection.",
        values=_one(lambda pool: pool.pending),
    ),
    PoolMetric(
        name="db.client.connection.timeouts",
        kind="counter",
        unit="{timeout}",
        help="Calls that got no connection in time.",
        values=_one(lambda pool: pool.timed_out),
    ),
    PoolMetric(
        name="db.client.connection.overflow",
        kind="gauge",
        unit="{connection}",
        help="Open connections above the size of the pool, which closes them when they come back.",
        values=_one(lambda pool: pool.overflow),
    ),
    PoolMetric(
        name="db.client.connection.cancelled_waits",
        kind="counter",
        unit="{request}",
        help="Calls that were cancelled while they waited for a connection.",
        values=_one(lambda pool: pool.cancelled_waits),
    ),
    PoolMetric(
        name="db.client.connection.failed_waits",
        kind="counter",
        unit="{request}",
        help="Calls that got no connection because connecting failed or the pool was closed.",
        values=_one(lambda pool: pool.failed_waits),
    ),
    PoolMetric(
        name="db.client.connection.collected",
        kind="counter",
        unit="{connection}",
        help="Connections that the garbage collector returned, because their borrower did not: leaks that were lucky.",
        values=_one(lambda pool: pool.collected),
    ),
    PoolMetric(
        name="db.client.connection.detached",
        kind="counter",
        unit="{connection}",
        help="Connections that were taken out of the pool for good.",
        values=_one(lambda pool: pool.detached),
    ),
)

TIMES = (
    PoolTime(
        name="db.client.connection.create_time",
        kind=TimeKind.CREATE,
        help="How long it took to open a connection.",
        values=lambda pool: pool.create_time,
    ),
    PoolTime(
        name="db.client.connection.wait_time",
        kind=TimeKind.WAIT,
        help="How long calls waited until they had a connection.",
        values=lambda pool: pool.wait_time,
    ),
    PoolTime(
        name="db.client.connection.use_time",
        kind=TimeKind.USE,
        help="How long connections were out, counted when they came back.",
        values=lambda pool: pool.use_time,
    ),
)

BORROWED = ("db.client.connection.borrowed", "Connections that are out, by the line that borrowed them.")
OVERDUE = (
    "db.client.connection.overdue",
    "Connections that have been out for longer than leak_threshold, by the line that borrowed them.",
)


class SiteLabels:
    """Gives the borrowing lines of one process a bounded number of label values."""

    def __init__(self, most: int = 50) -> None:
        """Show so many lines; the others together are `other`."""
        self._most = most
        self._shown: set[str] = set()

    def count(self, handle: PoolHandle, *, overdue: bool) -> dict[str, int]:
        """Return how many connections of a pool are out by line, or only those above its threshold."""
        if not overdue:
            return self._counted(handle, 0)
        return {} if handle.leak_threshold is None else self._counted(handle, handle.leak_threshold)

    def _counted(self, handle: PoolHandle, older_than: float) -> dict[str, int]:
        return dict(Counter(self._label(str(each.site or "unknown")) for each in handle.borrowed(older_than)))

    def _label(self, site: str) -> str:
        if site not in self._shown:
            if len(self._shown) >= self._most:
                return "other"
            self._shown.add(site)
        return site
