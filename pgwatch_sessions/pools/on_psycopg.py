"""Keeps the ledger of a psycopg_pool pool, with threads or with asyncio.

The pool's class is replaced by a subclass that wraps `getconn()` and `putconn()`, which `connection()` calls, too.

psycopg_pool does not notice when a borrower drops a connection without returning it: psycopg closes the connection, and
its place in the pool is lost. Readings count such a connection as returned by the garbage collector.
"""

import weakref
from collections.abc import Hashable
from time import monotonic
from typing import Any

from psycopg_pool import (
    AsyncConnectionPool,
    AsyncNullConnectionPool,
    ConnectionPool,
    NullConnectionPool,
    PoolTimeout,
)

from pgwatch_sessions.pools.attachment import Attachment, Options
from pgwatch_sessions.pools.ledger import Entry, Ledger, numbers, wait_end
from pgwatch_sessions.pools.snapshot import Limits


def attach(pool: Any, options: Options) -> Attachment:
    """Keep a ledger for a pool. It does not keep the pool alive."""
    base = type(pool)
    ref = weakref.ref(pool)
    ledger = Ledger(
        options.name(pool.name),
        kind=f"psycopg_pool {base.__name__}",
        capture=options.capture,
        limits=lambda: _limits(ref()),
        idle=lambda _: _idle(ref()),
        still_out=_still_out,
        on_return=options.on_return,
    )
    watched = _watched(base, ledger, asynchronous=isinstance(pool, AsyncConnectionPool))
    pool.__class__ = watched

    def undo() -> None:
        pool = ref()
        if type(pool) is watched:
            pool.__class__ = base

    return Attachment(
        ledger=ledger,
        covers=lambda other: type(other) is watched,
        exists=lambda: _exists(ref()),
        undo=undo,
    )


def accepts(target: object) -> bool:
    """Tell whether this is a pool of psycopg_pool."""
    return isinstance(target, ConnectionPool | AsyncConnectionPool)


def _watched(base: Any, ledger: Ledger, *, asynchronous: bool) -> Any:
    methods = _async_methods(base, ledger) if asynchronous else _sync_methods(base, ledger)
    return type(base.__name__, (base,), {"__module__": base.__module__, **methods})


def _sync_methods(base: Any, ledger: Ledger) -> dict[str, Any]:
    waits = ledger.waits

    def getconn(self: Any, timeout: float | None = None) -> Any:
        if not ledger.on:
            return base.getconn(self, timeout)
        number = next(numbers)
        waits[number] = monotonic()
        try:
            connection = base.getconn(self, timeout)
        except BaseException as error:
            ledger.end_wait(number, wait_end(error, PoolTimeout))
            raise
        try:
            ledger.borrow(id(connection), ledger.where(), weakref.ref(connection), number)
        except Exception as error:  # noqa: BLE001  # the application must get its connection
            ledger.switch_off(error)
        return connection

    def putconn(self: Any, conn: Any) -> None:
        if ledger.on:  # before it is returned: from then on, another thread may have it
            ledger.give_back(id(conn))
        base.putconn(self, conn)

    def _connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = monotonic()
        connection = base._connect(self, *args, **kwargs)  # noqa: SLF001  # connecting has no public method
        ledger.created(monotonic() - begun)
        return connection

    return {"getconn": getconn, "putconn": putconn, "_connect": _connect}


def _async_methods(base: Any, ledger: Ledger) -> dict[str, Any]:
    waits = ledger.waits

    async def getconn(self: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # psycopg_pool's own signature
        if not ledger.on:
            return await base.getconn(self, timeout)
        number = next(numbers)
        waits[number] = monotonic()
        try:
            connection = await base.getconn(self, timeout)
        except BaseException as error:
            ledger.end_wait(number, wait_end(error, PoolTimeout))
            raise
        try:
            ledger.borrow(id(connection), ledger.where(), weakref.ref(connection), number)
        except Exception as error:  # noqa: BLE001  # the application must get its connection
            ledger.switch_off(error)
        return connection

    async def putconn(self: Any, conn: Any) -> None:
        if ledger.on:
            ledger.give_back(id(conn))
        await base.putconn(self, conn)

    async def _connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = monotonic()
        connection = await base._connect(self, *args, **kwargs)  # noqa: SLF001  # connecting has no public method
        ledger.created(monotonic() - begun)
        return connection

    return {"getconn": getconn, "putconn": putconn, "_connect": _connect}


def _still_out(_: Hashable, entry: Entry) -> bool:
    return entry.owner is not None and entry.owner() is not None


def _exists(pool: Any) -> bool:
    """Tell whether the pool is open, or can still be opened."""
    return pool is not None and not (pool.closed and getattr(pool, "_opened", True))


def _idle(pool: Any) -> int:
    return 0 if pool is None or pool.closed else int(pool.get_stats()["pool_available"])


def _limits(pool: Any) -> Limits:
    if pool is None:
        return Limits()
    if isinstance(pool, NullConnectionPool | AsyncNullConnectionPool):
        return Limits(max=pool.max_size or None, idle_max=0)  # a maximum of 0 means no limit
    return Limits(max=pool.max_size, idle_max=pool.max_size, idle_min=pool.min_size)
