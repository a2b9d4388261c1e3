"""Keeps the ledger of a SQLAlchemy engine, synchronous or asynchronous, with any class of pool.

Returns come from the pool's events. Checkouts are seen by wrapping `connect()`, because waits, time-outs and cancelled
waits have no event, and the event of a checkout costs more than all that is kept of it. To wrap it, the pool's class is
replaced by a subclass of the same name; the pool that follows after `engine.dispose()` is of the same class.

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
from time import monotonic
from typing import Any

from sqlalchemy import Engine, event, exc
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AssertionPool, NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from pgwatch_sessions.pools.attachment import Attachment, Options
from pgwatch_sessions.pools.ledger import Entry, Ledger, logger, numbers, wait_end
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
    listeners = _listeners(ledger)
    if isinstance(engine.pool, SingletonThreadPool) or not _wrap_connect(engine.pool, ledger, shared=shared):
        listeners["checkout"] = _checkout_listener(ledger)
    for name, listener in listeners.items():
        event.listen(engine, name, listener)

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


def _listeners(ledger: Ledger) -> dict[str, Callable[..., None]]:
    """Return what to call at each event. A connection is known by its id, unique while it is in the ledger.

    No listener raises: an exception would make the application lose the connection.
    """

    def connect(_: Any, record: Any) -> None:
        ledger.remember(record)
        ledger.created(time.time() - record.starttime)

    def detach(connection: Any, _: Any) -> None:
        ledger.detach(id(connection))

    def close_detached(connection: Any) -> None:
        ledger.close_detached(id(connection))

    end = _end_listener(ledger)
    return {
        "connect": _never_raising(ledger, connect),
        "checkin": end,
        "close": end,
        "detach": _never_raising(ledger, detach),
        "close_detached": _never_raising(ledger, close_detached),
    }


def _checkout_listener(ledger: Ledger) -> Callable[..., None]:
    """Return the listener for pools whose `connect()` is not wrapped: it may give the same connection several times."""

    def checkout(connection: Any, record: Any, fairy: Any) -> None:
        ledger.remember(record)
        ledger.borrow(id(connection), ledger.where(), weakref.ref(fairy, _when_collected))

    return _never_raising(ledger, checkout)


def _end_listener(ledger: Ledger) -> Callable[..., None]:
    known = ledger.known_records

    def end(connection: Any, record: Any) -> None:
        if ledger.on and connection is not None:
            try:
                if id(record) not in known:
                    ledger.remember(record)
                ledger.give_back(id(connection))
            except Exception as error:  # noqa: BLE001  # a listener must not raise
                ledger.switch_off(error)

    return end


def _never_raising(ledger: Ledger, act: Callable[..., None]) -> Callable[..., None]:
    """Return a listener that never raises. For rare events: the call costs time."""

    def listener(*args: Any) -> None:
        if ledger.on:
            try:
                act(*args)
            except Exception as error:  # noqa: BLE001  # a listener must not raise
                ledger.switch_off(error)

    return listener


def _when_collected(_: object) -> None:
    """Do nothing. Python 3.15 clears only references with a callback before SQLAlchemy returns the connection."""


def _wrap_connect(pool: Pool, ledger: Ledger, *, shared: bool) -> bool:
    """Replace the pool's class by a subclass that tells the ledger of each checkout, and return whether it could."""
    base = type(pool)
    namespace = {"connect": _connect_method(base, ledger, shared=shared), "__module__": base.__module__, _MARK: ledger}
    try:
        # A class with several bases would have another layout, which Python refuses.
        pool.__class__ = type(base.__name__, (base,), namespace)
    except Exception as error:  # noqa: BLE001  # whatever a class of somebody else does when it is subclassed
        logger.warning(
            "waits for connections of the pool %s are not counted, because its class %s cannot be subclassed: %s",
            ledger.name,
            base.__name__,
            error,
        )
        return False
    return True


def _connect_method(base: Any, ledger: Ledger, *, shared: bool) -> Callable[[Any], Any]:
    waits = ledger.waits

    def connect(self: Any) -> Any:
        if not ledger.on:
            return base.connect(self)
        number = next(numbers)
        waits[number] = monotonic()
        try:
            fairy = base.connect(self)
        except BaseException as error:
            ledger.end_wait(number, wait_end(error, exc.TimeoutError))
            raise
        try:
            connection = id(fairy.dbapi_connection)
            key = id(fairy) if shared else connection
            ledger.borrow(key, ledger.where(), weakref.ref(fairy, _when_collected), number, connection)
        except Exception as error:  # noqa: BLE001  # the application must get its connection
            ledger.switch_off(error)
        return fairy

    return connect


def _still_shared(_: Hashable, entry: Entry) -> bool:
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
