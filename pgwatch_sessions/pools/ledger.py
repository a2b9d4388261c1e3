"""Keeps who has borrowed which connection of a pool.

The ledger has one entry for each connection that is out, keyed by the connection. Numbers are counted from the entries
when somebody reads them. Gauges that go up at a checkout and down at a checkin drift, because pools do not report every
checkout and checkin: a failed reconnect is a checkin without a checkout, a detached connection has no checkin, and a
time-out has no event at all.

All methods may be called from any thread, and from the garbage collector in the middle of another call: the lock is
re-entrant, and what it guards is never half changed.
"""

import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Any, Literal, NamedTuple

from pgwatch_sessions.pools.histogram import DurationCounts
from pgwatch_sessions.pools.sites import CodePlace, Site, capture, capture_stack, resolve
from pgwatch_sessions.pools.snapshot import Limits, PoolSnapshot

logger = logging.getLogger("pgwatch_sessions.pools")

#: How much to keep of who borrows: a line, all lines of the application's stack, or nothing.
Capture = Literal["site", "stack", "off"]

#: Returns the tags of what the context works for, such as a request: `{"route": "/orders/{id}"}`. It is called when the
#: tags are read, because the route is not known before routing. It must not refer to the request, a session or a
#: connection: the ledger would keep them alive.
TagSource = Callable[[], Mapping[str, str]]
current_tags: ContextVar[TagSource | None] = ContextVar("pgwatch_sessions_pools_tags", default=None)


class WaitEnd(Enum):
    """How a wait for a connection ended without one."""

    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    #: Connecting failed, or the pool was closed.
    FAILED = "failed"


def wait_end(error: BaseException, timeout: type[Exception]) -> WaitEnd:
    """Return how a wait ended that raised this error. `timeout` is what the pool raises when it has waited enough."""
    if isinstance(error, timeout):
        return WaitEnd.TIMED_OUT
    return WaitEnd.FAILED if isinstance(error, Exception) else WaitEnd.CANCELLED


class TimeKind(Enum):
    """What took the time."""

    CREATE = "create"
    WAIT = "wait"
    USE = "use"


class Entry(NamedTuple):
    """A borrowed connection, in a form that is cheap to make."""

    #: No other borrow of the process has it.
    number: int
    #: What the pool calls the connection. Several entries have the same one only in a pool that shares a connection.
    connection: Hashable
    #: By time.monotonic().
    since: float
    places: tuple[CodePlace, ...]
    tags: TagSource | None
    #: What the borrower holds. If it is gone when the connection comes back, the garbage collector returned it.
    owner: Callable[[], object] | None
    detached: bool = False


#: What the ledger keeps of a borrow: the number, connection, since, what `Ledger.where()` returned, tags and owner. An
#: `Entry` is made of it when somebody reads: that takes as long as all the rest of a checkout's bookkeeping.
Kept = tuple[int, Hashable, float, Any, TagSource | None, Callable[[], object] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrowed:
    """A connection that is out, and who has it."""

    pool: str
    #: No other borrow of the process has it.
    number: int
    #: In seconds.
    age: float
    #: The line that borrowed it; None if that was not kept or is in a library.
    site: Site | None
    #: The application's lines that led there, innermost first; empty unless the stack was kept.
    stack: tuple[Site, ...]
    tags: Mapping[str, str]
    #: The pool no longer knows it, but it is not closed.
    detached: bool


class Ledger:
    """The borrowed connections of one pool, and what was counted of it."""

    #: Whether each single duration is kept until `take_samples()`, beside the counts. For OpenTelemetry.
    keeps_samples = False

    def __init__(
        self,
        name: str,
        *,
        kind: str,
        capture: Capture = "site",
        limits: Callable[[], Limits] = Limits,
        idle: Callable[[set[Hashable]], int] = lambda _: 0,
        still_out: Callable[[Hashable, Entry], bool] | None = None,
        counts_collected: bool = True,
        on_return: Callable[[Entry, bool], None] | None = None,
    ) -> None:
        """Begin with no connection.

        `idle` returns how many connections are open and not out, given those that are out. `still_out` tells at each
        reading whether an entry is still right, given its key too, for pools that do not report every return. Where it
        cannot tell a return from a dropped connection, set `counts_collected` to False. `on_return` is called with each
        entry that ends, and with whether the garbage collector returned it; it may run inside the garbage collector.
        """
        self.name = name
        self.kind = kind
        #: False once something of ours has failed: then nothing more is kept, and no numbers are shown.
        self.on = True
        #: Lives as long as the ledger, which lives as long as the pool.
        self.keep: object = None
        #: The objects that `remember()` got, by id. It stays the same dict, so that a listener can keep it.
        self.known_records: dict[int, weakref.ref[object]] = {}
        #: Since when calls wait for a connection, by time.monotonic(). The key is a number out of `numbers`, which
        #: `borrow()` or `end_wait()` takes. It stays the same dict, too.
        self.waits: dict[int, float] = {}
        #: Returns who called the function that calls it, in the form and as far as it is kept.
        self.where: Callable[[], Any] = _WHERE[capture]
        self._limits = limits
        self._idle = idle
        self._still_out = still_out
        self._counts_collected = counts_collected
        self._on_return = on_return
        self.forget()
        _ledgers.add(self)

    def forget(self) -> None:
        """Start over with no connection and all counts 0. The child of a fork does: its parent has the connections."""
        self._lock = threading.RLock()
        self._kept: dict[Hashable, Kept] = {}
        self._detached: dict[Hashable, Kept] = {}
        self.known_records.clear()
        self.waits.clear()
        self._ends = dict.fromkeys(WaitEnd, 0)
        self._collected = 0
        self._detached_count = 0
        self._times = {kind: DurationCounts() for kind in TimeKind}
        self._created = self._times[TimeKind.CREATE].new
        self._waited = self._times[TimeKind.WAIT].new
        self._used = self._times[TimeKind.USE].new
        self._samples: deque[tuple[TimeKind, float]] = deque(maxlen=_MOST_SAMPLES)

    def switch_off(self, error: Exception) -> None:
        """Log an error of ours, once, and stop: the application must not suffer from it."""
        if self.on:
            self.on = False
            logger.error("the pool %s is no longer watched: error in pgwatch_sessions.pools", self.name, exc_info=error)
            self.forget()

    def end_wait(self, number: int, end: WaitEnd) -> None:
        """Note that a wait is over without a connection, and why."""
        if self.waits.pop(number, None) is not None:  # else it began before a fork
            with self._lock:
                self._ends[end] += 1

    def borrow(
        self,
        key: Hashable,
        where: Any = None,
        owner: Callable[[], object] | None = None,
        number: int | None = None,
        connection: Hashable = None,
    ) -> None:
        """Note that a connection is out, and that the wait of that number is over.

        `key` identifies the borrow, and the connection, too, unless `connection` does. `where` is what `where()`
        returned to the method that the application called.
        """
        now = monotonic()
        if number is None:
            number = next(numbers)
        begun = self.waits.pop(number, None)
        if begun is not None:
            self._waited.append(now - begun)
        if key in self._kept:  # it came back without a report
            self.give_back(key)
        self._kept[key] = (number, key if connection is None else connection, now, where, current_tags.get(), owner)

    def give_back(self, key: Hashable, among: dict[Hashable, Kept] | None = None) -> None:
        """Note that a connection came back. A key that is not out changes nothing."""
        kept = (self._kept if among is None else among).pop(key, None)
        if kept is None:
            return
        _, _, since, _, _, owner = kept
        self._used.append(monotonic() - since)
        if len(self._used) >= _MOST_NEW:
            self._count_times()
        collected = owner is not None and owner() is None and self._counts_collected
        if collected:
            with self._lock:
                self._collected += 1
        if self._on_return is not None:
            self._on_return(self._entry(kept), collected)

    def detach(self, connection: Hashable) -> None:
        """Note that the pool gave up a connection. The borrower still has it, until `close_detached(connection)`."""
        with self._lock:
            self._detached_count += 1
        kept = self._kept.pop(connection, None)
        if kept is not None:
            self._detached[connection] = kept
            if _is_gone(kept):
                self.close_detached(connection)

    def close_detached(self, connection: Hashable) -> None:
        """Note that a detached connection was closed."""
        self.give_back(connection, self._detached)

    def created(self, seconds: float) -> None:
        """Note how long it took to open a connection."""
        self._created.append(max(0.0, seconds))

    def remember(self, record: object) -> None:
        """Keep a weak reference to an object in which the pool keeps a connection."""
        number = id(record)
        if number not in self.known_records:
            self.known_records[number] = weakref.ref(record, lambda _: self.known_records.pop(number, None))

    def records(self) -> list[object]:
        """Return the remembered objects that still exist."""
        return [record for ref in list(self.known_records.values()) if (record := ref()) is not None]

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers now."""
        out = {entry.connection for entry in self.entries()}
        detached_open = len(self._detached_entries())
        limits = self._limits()
        idle = self._idle(out)
        with self._lock:
            self._count_times()
            return PoolSnapshot(
                name=self.name,
                kind=self.kind,
                used=len(out),
                idle=idle,
                pending=len(self.waits),
                overflow=None if limits.size is None else max(0, len(out) + idle - limits.size),
                limits=limits,
                timed_out=self._ends[WaitEnd.TIMED_OUT],
                cancelled_waits=self._ends[WaitEnd.CANCELLED],
                failed_waits=self._ends[WaitEnd.FAILED],
                collected=self._collected,
                detached=self._detached_count,
                detached_open=detached_open,
                create_time=self._times[TimeKind.CREATE].read(),
                wait_time=self._times[TimeKind.WAIT].read(),
                use_time=self._times[TimeKind.USE].read(),
            )

    def borrowed(self, older_than: float = 0.0) -> tuple[Borrowed, ...]:
        """Return who has connections for at least so many seconds, detached ones included, the oldest first."""
        now = monotonic()
        entries = sorted((*self.entries(), *self._detached_entries()), key=lambda entry: entry.since)
        return tuple(
            borrowed_of(self.name, entry, now)
            for entry in entries
            if older_than <= 0 or now - entry.since >= older_than
        )

    def entries(self) -> list[Entry]:
        """Return what is out, without detached connections, after ending what came back without a report."""
        if self._still_out is not None:
            for key, kept in list(self._kept.items()):
                if not self._still_out(key, self._entry(kept)) and self._kept.get(key) is kept:
                    self.give_back(key)
        return [self._entry(kept) for kept in list(self._kept.values())]

    def _detached_entries(self) -> list[Entry]:
        """Return the detached connections that are open; one whose owner is gone was closed with it."""
        for connection, kept in list(self._detached.items()):
            if _is_gone(kept):
                self.close_detached(connection)
        return [self._entry(kept, detached=True) for kept in list(self._detached.values())]

    def take_samples(self) -> list[tuple[TimeKind, float]]:
        """Return each duration in seconds since the last call, and forget them."""
        self._count_times()
        return [self._samples.popleft() for _ in range(len(self._samples))]

    def _count_times(self) -> None:
        """Count the durations that are new. Not at each checkout, because to count many together is cheaper."""
        with self._lock:
            for kind, times in self._times.items():
                new = times.count_new()
                if Ledger.keeps_samples:
                    self._samples.extend((kind, seconds) for seconds in new)

    def _entry(self, kept: Kept, *, detached: bool = False) -> Entry:
        number, connection, since, where, tags, owner = kept
        places = () if where is None else where if self.where is capture_stack else (where,)
        return Entry(number, connection, since, places, tags, owner, detached)


def _is_gone(kept: Kept) -> bool:
    """Tell whether nobody holds the connection any more."""
    owner = kept[-1]
    return owner is not None and owner() is None


def _nowhere() -> None:
    """Return nothing, instead of where the caller is."""


def borrowed_of(pool: str, entry: Entry, now: float) -> Borrowed:
    """Return an entry with its lines and tags looked up."""
    stack = tuple(map(resolve, entry.places))
    return Borrowed(
        pool=pool,
        number=entry.number,
        age=max(0.0, now - entry.since),
        site=stack[0] if stack else None,
        stack=stack if len(stack) > 1 else (),
        tags=_tags(entry.tags),
        detached=entry.detached,
    )


def _tags(source: TagSource | None) -> Mapping[str, str]:
    try:
        return {} if source is None else dict(source())
    except Exception:  # noqa: BLE001  # tags are the application's, and a report without them is better than none
        return {}


_WHERE: Mapping[Capture, Callable[[], Any]] = {"site": capture, "stack": capture_stack, "off": _nowhere}

#: If nobody takes them, the oldest are dropped.
_MOST_SAMPLES = 10_000

#: So many durations of use are counted together; a reading counts those that there are.
_MOST_NEW = 100

#: A number for each wait and borrow of the process.
numbers = itertools.count(1)
_ledgers: "weakref.WeakSet[Ledger]" = weakref.WeakSet()


def _forget_all() -> None:
    for ledger in list(_ledgers):
        ledger.forget()


os.register_at_fork(after_in_child=_forget_all)
