"""`instrument()`: watches a connection pool of SQLAlchemy, asyncpg or psycopg_pool."""

import importlib
import itertools
import threading
import weakref
from typing import Any

from pgwatch_sessions.pools.attachment import Attachment, Options
from pgwatch_sessions.pools.ledger import Borrowed, Capture, TimeKind, logger
from pgwatch_sessions.pools.overdue import OverdueLog
from pgwatch_sessions.pools.snapshot import PoolSnapshot

#: The library of a pool, by the first part of its class's module; our module for it, and what installs a version that
#: the module works with. None is imported before a pool of it is there.
_ADAPTERS = {
    "sqlalchemy": ("pgwatch_sessions.pools.on_sqlalchemy", "pgwatch-sessions[sqlalchemy]"),
    "asyncpg": ("pgwatch_sessions.pools.on_asyncpg", "pgwatch-sessions"),
    "psycopg_pool": ("pgwatch_sessions.pools.on_psycopg", "pgwatch-sessions[psycopg]"),
}


class PoolHandle:
    """A pool that is watched, for as long as it exists, whether the handle is kept or not."""

    def __init__(self, attachment: Attachment, overdue: OverdueLog | None) -> None:
        self._attachment = attachment
        self._overdue = overdue

    @property
    def name(self) -> str:
        """The name of the pool in metrics and log lines."""
        return self._attachment.ledger.name

    @property
    def leak_threshold(self) -> float | None:
        """The age in seconds from which a borrowed connection is logged."""
        return None if self._overdue is None else self._overdue.threshold

    @property
    def watching(self) -> bool:
        """Whether there are numbers: not for a closed pool, after `close()`, nor after an error of ours."""
        return self._attachment.ledger.on and self._attachment.exists()

    def covers(self, target: object) -> bool:
        """Tell whether this is the handle of that engine or pool."""
        return self._attachment.ledger.on and self._attachment.covers(target)

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers now."""
        return self._attachment.ledger.snapshot()

    def borrowed(self, older_than: float = 0.0) -> tuple[Borrowed, ...]:
        """Return who has had a connection for at least so many seconds, the longest first."""
        return self._attachment.ledger.borrowed(older_than)

    def take_samples(self) -> list[tuple[TimeKind, float]]:
        """Return each duration in seconds since the last call; none unless `Ledger.keeps_samples`."""
        return self._attachment.ledger.take_samples()

    def close(self) -> None:
        """Stop watching. The pool goes on as before it was instrumented."""
        ledger = self._attachment.ledger
        if ledger.on:
            ledger.on = False
            ledger.forget()
        if self._overdue is not None:
            self._overdue.stop()
        self._attachment.undo()


def instrument(
    target: Any, *, name: str | None = None, leak_threshold: float | None = None, capture: Capture = "site"
) -> PoolHandle:
    """Watch a pool: a SQLAlchemy engine, an asyncpg pool, or a pool of psycopg_pool, each synchronous or asynchronous.

    Call it right after the pool is made: connections that are open already are counted from their next checkout on.
    `name` is the pool's name in metrics; by default it is host:port/database, for psycopg_pool the pool's own name.
    Borrowers that keep a connection for `leak_threshold` seconds are logged. `capture` says what to keep of a borrower:
    its line (`site`), the application's lines that led there (`stack`), or nothing (`off`).

    A pool that is watched already keeps its handle and its options. TypeError if the target is no such pool, and
    ImportError if its library is too old.
    """
    if capture not in {"site", "stack", "off"}:
        raise ValueError(f'capture={capture!r}: use "site", "stack" or "off"')
    if leak_threshold is not None and leak_threshold <= 0:
        raise ValueError(
            f"leak_threshold={leak_threshold!r}: use a number of seconds above 0, or None for no log lines"
        )
    adapter = _adapter(target)
    with _lock:
        for handle in list(_handles):
            if handle.covers(target):
                return handle
        overdue = None if leak_threshold is None else OverdueLog(leak_threshold)
        attachment = adapter.attach(
            target,
            Options(
                name=lambda default: _free_name(name or default),
                capture=capture,
                on_return=None if overdue is None else overdue.on_return,
            ),
        )
        handle = PoolHandle(attachment, overdue)
        attachment.ledger.keep = handle
        _handles.add(handle)
    if overdue is not None:
        overdue.start(attachment.ledger)
    return handle


def uninstrument(target: Any) -> None:
    """Stop watching a pool. If it is not watched, nothing changes."""
    for handle in list(_handles):
        if handle.covers(target):
            handle.close()


def handles() -> tuple[PoolHandle, ...]:
    """Return the handles of all pools that are watched in this process, by name."""
    return tuple(sorted((handle for handle in list(_handles) if handle.watching), key=lambda handle: handle.name))


def _adapter(target: object) -> Any:
    for cls in type(target).__mro__:
        library = cls.__module__.partition(".")[0]
        if library in _ADAPTERS:
            module, package = _ADAPTERS[library]
            try:
                adapter = importlib.import_module(module)
            except ImportError as error:
                raise ImportError(f"cannot watch pools of this {library} ({error}): pip install '{package}'") from error
            if adapter.accepts(target):
                return adapter
    raise TypeError(
        f"cannot instrument a {type(target).__module__}.{type(target).__qualname__}: "
        "use a SQLAlchemy Engine or AsyncEngine, an asyncpg.Pool, or a pool of psycopg_pool"
    )


def _free_name(wanted: str) -> str:
    taken = {handle.name for handle in handles()}
    if wanted not in taken:
        return wanted
    name = next(name for number in itertools.count(2) if (name := f"{wanted}-{number}") not in taken)
    logger.info("there is a pool %s already, so this one is named %s; instrument() takes a name", wanted, name)
    return name


_lock = threading.Lock()
_handles: "weakref.WeakSet[PoolHandle]" = weakref.WeakSet()
