"""Keeps who has borrowed which connection of a pool.

The ledger has one entry for each connection that is out, keyed by the pool's record of the connection. Numbers are
counted from the entries when somebody reads them. Gauges that go up at a checkout and down at a checkin drift, because
pools do not report every checkout and checkin: a failed reconnect is a checkin without a checkout, a detached
connection has no checkin, and a time-out has no event at all.

All methods may be called from any thread, and from the garbage collector in the middle of another call: the lock is
re-entrant, and what it guards is never half changed.
"""

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Literal, NamedTuple

from pgwatch_sessions.pools.histogram import DurationCounts, Durations
from pgwatch_sessions.pools.sites import CodePlace, Site, capture, capture_stack, resolve

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


class Entry(NamedTuple):
    """A borrowed connection, in a form that is cheap to make."""

    #: Increases with each borrow of the process.
    number: int
    #: The pool's record of the connection. Several entries have the same one only in a pool that shares a connection.
    record: Hashable
    #: By time.monotonic().
    since: float
    places: tuple[CodePlace, ...]
    tags: TagSource | None
    #: What the borrower holds. If it is gone when the connection comes back, the garbage collector returned it.
    owner: Callable[[], object] | None
    detached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrowed:
    """A connection that is out, and who has it."""

    pool: str
    #: Increases with each borrow of the process.
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


class Ledger:
    """The borrowed connections of one pool, and what was counted of it."""

    def __init__(
        self,
        name: str,
        *,
        kind: str,
        capture: Capture = "site",
        limits: Callable[[], Limits] = Limits,
        open_count: Callable[[], int] | None = None,
        still_out: Callable[[Entry], bool] | None = None,
        on_return: Callable[[Entry, bool], None] | None = None,
    ) -> None:
        """Begin with no connection.

        `open_count` returns how many connections of the pool are open, out or not; without it `opened()` and
        `closed()` must be called. `still_out` tells at each reading whether an entry is still right, for pools that do
        not report every return. `on_return` is called with each entry that ends, and with whether the garbage collector
        returned it; it may run inside the garbage collector.
        """
        self.name = name
        self.kind = kind
        self._capture = capture
        self._limits = limits
        self._open_count = open_count
        self._still_out = still_out
        self._on_return = on_return
        self.forget()
        _ledgers.add(self)

    def forget(self) -> None:
        """Start over with no connection and all counts 0. The child of a fork does: its parent has the connections."""
        self._lock = threading.RLock()
        self._entries: dict[Hashable, Entry] = {}
        self._detached: dict[Hashable, Entry] = {}
        self._open: dict[Hashable, object] = {}
        self._waits: dict[int, float] = {}
        self._ends = dict.fromkeys(WaitEnd, 0)
        self._collected = 0
        self._detached_count = 0
        self._create_time = DurationCounts()
        self._wait_time = DurationCounts()
        self._use_time = DurationCounts()

    def begin_wait(self) -> int:
        """Note that a call waits for a connection. Return what ends the wait."""
        number = next(_numbers)
        self._waits[number] = monotonic()
        return number

    def end_wait(self, number: int, end: WaitEnd | None = None) -> None:
        """Note that a wait is over: it got a connection, or `end` tells why not."""
        begun = self._waits.pop(number, None)
        if begun is None:  # it began before a fork
            return
        with self._lock:
            if end is None:
                self._wait_time.add(monotonic() - begun)
            else:
                self._ends[end] += 1

    def borrow(self, record: Hashable, *, key: Hashable = None, owner: Callable[[], object] | None = None) -> None:
        """Note that this call's caller has the connection of `record`.

        `key` identifies the borrow, if a record can be out several times; by default it is the record.
        """
        if self._capture == "site":
            place = capture()
            places: tuple[CodePlace, ...] = () if place is None else (place,)
        else:
            places = capture_stack() if self._capture == "stack" else ()
        entry = Entry(next(_numbers), record, monotonic(), places, current_tags.get(), owner)
        self._entries[record if key is None else key] = entry

    def give_back(self, key: Hashable) -> None:
        """Note that a connection came back. A key that is not out changes nothing."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._end(entry, monotonic())

    def detach(self, key: Hashable, connection: Hashable) -> None:
        """Note that the pool gave up a connection. The borrower still has it, until `close_detached(connection)`."""
        entry = self._entries.pop(key, None)
        with self._lock:
            self._detached_count += 1
        if entry is None:
            return
        if entry.owner is not None and entry.owner() is None:
            self._end(entry, monotonic())
        else:
            self._detached[connection] = entry._replace(detached=True)

    def close_detached(self, connection: Hashable) -> None:
        """Note that a detached connection was closed."""
        entry = self._detached.pop(connection, None)
        if entry is not None:
            self._end(entry, monotonic())

    def opened(self, record: Hashable, seconds: float | None = None, keep: object = None) -> None:
        """Note that a record has an open connection, and how long connecting took.

        `keep` stays referenced for as long as the connection is open: for example a weak reference with a callback.
        """
        self._open[record] = keep
        if seconds is not None:
            with self._lock:
                self._create_time.add(max(0.0, seconds))

    def closed(self, record: Hashable) -> None:
        """Note that the connection of a record was closed, or left the pool."""
        self._open.pop(record, None)

    def is_open(self, record: Hashable) -> bool:
        """Tell whether a record is known to have an open connection."""
        return record in self._open

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers now."""
        used = len({entry.record for _, entry in self._current()})
        limits = self._limits()
        open_now = max(used, len(self._open) if self._open_count is None else self._open_count())
        with self._lock:
            return PoolSnapshot(
                name=self.name,
                kind=self.kind,
                used=used,
                idle=open_now - used,
                pending=len(self._waits),
                overflow=None if limits.size is None else max(0, open_now - limits.size),
                limits=limits,
                timed_out=self._ends[WaitEnd.TIMED_OUT],
                cancelled_waits=self._ends[WaitEnd.CANCELLED],
                failed_waits=self._ends[WaitEnd.FAILED],
                collected=self._collected,
                detached=self._detached_count,
                detached_open=len(self._detached),
                create_time=self._create_time.read(),
                wait_time=self._wait_time.read(),
                use_time=self._use_time.read(),
            )

    def borrowed(self, older_than: float = 0.0) -> tuple[Borrowed, ...]:
        """Return who has connections for at least so many seconds, detached ones included, the oldest first."""
        now = monotonic()
        entries = [entry for _, entry in self._current()] + list(self._detached.values())
        entries.sort(key=lambda entry: entry.since)
        return tuple(
            borrowed_of(self.name, entry, now)
            for entry in entries
            if older_than <= 0 or now - entry.since >= older_than
        )

    def _current(self) -> list[tuple[Hashable, Entry]]:
        """Return the entries, after ending those of connections that came back without a report."""
        if self._still_out is not None:
            for key, entry in list(self._entries.items()):
                if not self._still_out(entry) and self._entries.get(key) is entry:
                    self.give_back(key)
        return list(self._entries.items())

    def _end(self, entry: Entry, now: float) -> None:
        collected = entry.owner is not None and entry.owner() is None
        with self._lock:
            self._use_time.add(now - entry.since)
            self._collected += collected
        if self._on_return is not None:
            self._on_return(entry, collected)


def borrowed_of(pool: str, entry: Entry, now: float) -> Borrowed:
    """Return an entry with its lines and tags looked up."""
    stack = tuple(map(resolve, entry.places))
    return Borrowed(
        pool=pool,
        number=entry.number,
        age=max(0.0, now - entry.since),
        site=stack[0] if stack else None,
        stack=stack if len(stack) > 1 else (),
        tags={} if entry.tags is None else dict(entry.tags()),
        detached=entry.detached,
    )


_numbers = itertools.count(1)
_ledgers: "weakref.WeakSet[Ledger]" = weakref.WeakSet()


def _forget_all() -> None:
    for ledger in list(_ledgers):
        ledger.forget()


os.register_at_fork(after_in_child=_forget_all)
