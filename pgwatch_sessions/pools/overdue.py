"""Logs who has had a connection for longer than `leak_threshold`, and when it comes back.

One thread of the process looks at all pools that have a threshold. It also writes the lines about returns: the garbage
collector may return a connection while a call holds the lock of a log handler, and a line from there would deadlock.
"""

import os
import threading
import weakref
from collections import deque
from time import monotonic

from pgwatch_sessions.pools.ledger import Borrowed, Entry, Ledger, borrowed_of, logger


class OverdueLog:
    """Logs the borrowers of one pool: each once, and once more when its connection comes back."""

    def __init__(self, threshold: float) -> None:
        """Log from that age in seconds on."""
        self.threshold = threshold
        #: By number of the borrow.
        self._logged: set[int] = set()
        self._returned: deque[tuple[Entry, bool, float]] = deque()
        self._ledger: weakref.ref[Ledger] | None = None

    def start(self, ledger: Ledger) -> None:
        """Look at this ledger several times during the threshold."""
        self._ledger = weakref.ref(ledger)
        _watch.add(self)

    def stop(self) -> None:
        """Log nothing more."""
        _watch.remove(self)

    def on_return(self, entry: Entry, collected: bool) -> None:
        """Note that a connection came back. The line is written later, by the thread."""
        if entry.number in self._logged:
            self._returned.append((entry, collected, monotonic()))

    def forget(self) -> None:
        """Start over, in the child of a fork."""
        self._logged.clear()
        self._returned.clear()

    def check(self) -> bool:
        """Log what is new. Return whether the pool still exists."""
        ledger = None if self._ledger is None else self._ledger()
        if ledger is None or not ledger.on:
            return False
        borrowed = ledger.borrowed()
        for _ in range(len(self._returned)):
            entry, collected, at = self._returned.popleft()
            _log_return(borrowed_of(ledger.name, entry, at), collected=collected)
        self._logged &= {each.number for each in borrowed}
        for each in borrowed:
            if each.age >= self.threshold and each.number not in self._logged:
                self._logged.add(each.number)
                _log_overdue(each)
        return True


def _log_overdue(borrowed: Borrowed) -> None:
    logger.warning(
        "connection leak? One of pool %s has been out for %.1f s, borrowed at %s%s%s",
        borrowed.pool,
        borrowed.age,
        borrowed.site or "an unknown line",
        _tags(borrowed),
        "".join(f"\n    {site}" for site in borrowed.stack),
        extra=_fields(borrowed),
    )


def _log_return(borrowed: Borrowed, *, collected: bool) -> None:
    logger.warning(
        "the connection of pool %s that was borrowed at %s%s %s after %.1f s",
        borrowed.pool,
        borrowed.site or "an unknown line",
        _tags(borrowed),
        "was returned by the garbage collector, not by its borrower," if collected else "came back",
        borrowed.age,
        extra={**_fields(borrowed), "collected": collected},
    )


def _tags(borrowed: Borrowed) -> str:
    pairs = ", ".join(f"{key}={value}" for key, value in borrowed.tags.items())
    return f" ({pairs})" if pairs else ""


def _fields(borrowed: Borrowed) -> dict[str, object]:
    """Return what structured logs get beside the message."""
    return {
        "pool": borrowed.pool,
        "site": None if borrowed.site is None else str(borrowed.site),
        "age_seconds": round(borrowed.age, 3),
        "tags": dict(borrowed.tags),
    }


class _Watch:
    """The thread that checks, which runs while there is something to check."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logs: set[OverdueLog] = set()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, log: OverdueLog) -> None:
        with self._lock:
            self._logs.add(log)
            self._start()

    def remove(self, log: OverdueLog) -> None:
        with self._lock:
            self._logs.discard(log)
        self._changed.set()

    def after_fork(self) -> None:
        """Threads do not survive a fork."""
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread = None
        for log in self._logs:
            log.forget()
        if self._logs:
            self._start()

    def _start(self) -> None:
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pgwatch_sessions.pools", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._changed.clear()
            with self._lock:
                logs = tuple(self._logs)
                if not logs:
                    self._thread = None
                    return
            for log in logs:
                try:
                    exists = log.check()
                except Exception:  # noqa: BLE001  # it must not end the thread
                    logger.exception("borrowers are no longer logged: an error in pgwatch_sessions.pools")
                    exists = False
                if not exists:
                    self.remove(log)
            self._changed.wait(min(max(min(log.threshold for log in logs) / 4, 0.02), 1.0))


_watch = _Watch()
os.register_at_fork(after_in_child=_watch.after_fork)
