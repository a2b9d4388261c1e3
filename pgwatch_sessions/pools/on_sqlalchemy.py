"""Keeps the ledger of a SQLAlchemy engine, synchronous or asynchronous, with any class of pool.

Checkouts and checkins come from the pool's events. What has no event is seen by wrapping `connect()`: waits, time-outs
and cancelled waits. To wrap it, the pool's class is replaced by a subclass of the same name; the pool that follows
after `engine.dispose()` is of the same class.

Facts about the events, the same in SQLAlchemy 2.0 and 2.1:
* A connection that breaks or whose query is cancelled: invalidate, close, then checkin with None as its connection.
* `detach()`: the event detach, and no checkin. Asynchronous sessions that the garbage collector finds: the same.
* A reconnect that fails: a checkin without a checkout.
* An engine that is disposed while a connection is out: the connection comes back to the old pool, which is dropped with
  all its records, without an event.
* StaticPool: all borrowers share one record, and only one of their returns is reported.
"""

import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from sqlalchemy import Engine, event, exc
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AssertionPool, NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from pgwatch_sessions.pools.attachment import Attachment, Options
from pgwatch_sessions.pools.ledger import Entry, Ledger, WaitEnd, logger
from pgwatch_sessions.pools.snapshot import Limits

_MARK = "_pgwatch_sessions_ledger"


def attach(target: Engine | AsyncEngine, options: Options) -> Attachment:
    """Keep a ledger for an engine. It does not keep the engine alive."""
    engine = _sync(target)
    ref = weakref.ref(engine)
    shared = isinstance(engine.pool, StaticPool)
    ledger = Ledger(
        options.name(_default_name(engine)),
        kind=f"sqlalchemy {type(engine.pool).__name__}",
        capture=options.capture,
        limits=lambda: _limits(ref()),
        idle=lambda out: _idle(ledger, out),
        still_out=_still_shared if shared else None,
        counts_collected=not shared,
        on_return=options.on_return,
    )
    listeners = _listeners(ledger, shared=shared)
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    _wrap_connect(engine.pool, ledger)

    def undo() -> None:
        engine = ref()
        if engine is None:
            return
        for name, listener in listeners.items():
            if event.contains(engine, name, listener):
                event.remove(engine, name, listener)
        if getattr(type(engine.pool), _MARK, None) is ledger:
            engine.pool.__class__ = type(engine.pool).__mro__[1]

    def covers(other: object) -> bool:
        if not isinstance(other, Engine | AsyncEngine):
            return False
        other = _sync(other)
        return other is ref() or getattr(type(other.pool), _MARK, None) is ledger

    return Attachment(ledger=ledger, covers=covers, exists=lambda: ref() is not None, undo=undo)


def accepts(target: object) -> bool:
    """Tell whether this is an engine of SQLAlchemy."""
    return isinstance(target, Engine | AsyncEngine)


def _sync(engine: Engine | AsyncEngine) -> Engine:
    return engine.sync_engine if isinstance(engine, AsyncEngine) else engine


def _default_name(engine: Engine) -> str:
    url = engine.url
    return f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or url.username or ''}"


def _listeners(ledger: Ledger, *, shared: bool) -> dict[str, Callable[..., None]]:
    """Return what to call at each event. A connection is known by its id, unique while it is in the ledger."""

    def connect(_: Any, record: Any) -> None:
        ledger.remember(record)
        ledger.created(time.time() - record.starttime)

    def checkout(connection: Any, record: Any, fairy: Any) -> None:
        ledger.remember(record)
        owner = weakref.ref(fairy, _when_collected)
        ledger.borrow(id(connection), key=id(fairy) if shared else None, owner=owner)

    def end(connection: Any, record: Any) -> None:
        if connection is not None:
            ledger.remember(record)
            ledger.give_back(id(connection))

    def detach(connection: Any, _: Any) -> None:
        ledger.detach(id(connection))

    def close_detached(connection: Any) -> None:
        ledger.close_detached(id(connection))

    acts: dict[str, Callable[..., None]] = {
        "connect": connect,
        "checkout": checkout,
        "checkin": end,
        "close": end,
        "detach": detach,
        "close_detached": close_detached,
    }
    return {name: _never_raising(ledger, act) for name, act in acts.items()}


def _never_raising(ledger: Ledger, act: Callable[..., None]) -> Callable[..., None]:
    """Return a listener that never raises. An exception would make the application lose the connection."""

    def listener(*args: Any) -> None:
        if ledger.on:
            try:
                act(*args)
            except Exception as error:  # noqa: BLE001
                ledger.switch_off(error)

    return listener


def _when_collected(_: object) -> None:
    """Do nothing. Python 3.15 clears only references with a callback before SQLAlchemy returns the connection."""


def _wrap_connect(pool: Pool, ledger: Ledger) -> None:
    """Replace the pool's class by a subclass that tells the ledger of each wait."""
    base = type(pool)

    def connect(self: Any) -> Any:
        if not ledger.on:
            return base.connect(self)
        wait = ledger.begin_wait()
        try:
            fairy = base.connect(self)
        except exc.TimeoutError:
            ledger.end_wait(wait, WaitEnd.TIMED_OUT)
            raise
        except Exception:
            ledger.end_wait(wait, WaitEnd.FAILED)
            raise
        except BaseException:
            ledger.end_wait(wait, WaitEnd.CANCELLED)
            raise
        ledger.end_wait(wait)
        return fairy

    try:
        # A class with several bases would have another layout, which Python refuses.
        pool.__class__ = type(
            base.__name__, (base,), {"connect": connect, "__module__": base.__module__, _MARK: ledger}
        )
    except Exception as error:  # noqa: BLE001  # whatever a class of somebody else does when it is subclassed
        logger.warning(
            "waits for connections of the pool %s are not counted, because its class %s cannot be subclassed: %s",
            ledger.name,
            base.__name__,
            error,
        )


def _still_shared(entry: Entry) -> bool:
    """Tell whether a borrower of a StaticPool still has the connection."""
    fairy: Any = entry.owner and entry.owner()
    return fairy is not None and fairy.is_valid and fairy.driver_connection is not None


def _idle(ledger: Ledger, out: set[Hashable]) -> int:
    connections: list[Any] = [getattr(record, "dbapi_connection", None) for record in ledger.records()]
    return sum(connection is not None and id(connection) not in out for connection in connections)


def _limits(engine: Engine | None) -> Limits:
    pool = engine and engine.pool
    if isinstance(pool, QueuePool):
        size, overflow = pool.size(), getattr(pool, "_max_overflow", None)
        if size == 0 or overflow is None:  # a size of 0 means no limit
            return Limits()
        return Limits(size=size, idle_max=size, max=None if overflow < 0 else size + overflow)
    if isinstance(pool, StaticPool | AssertionPool):
        return Limits(max=1, idle_max=1)
    if isinstance(pool, NullPool):
        return Limits(idle_max=0)
    if isinstance(pool, SingletonThreadPool):
        return Limits(max=pool.size, idle_max=pool.size)
    return Limits()
