"""Notes who opens connections of asyncpg and psycopg, and who takes them from the pools of these two."""

# ruff: noqa: SLF001  the pool of asyncpg has neither events nor public attributes

import functools
import sys
import threading
import weakref
from collections.abc import Hashable
from types import FrameType
from typing import Any

from pgwatch_sessions.pools.sites import CodePlace, capture
from pgwatch_sessions.pools.testing.borrows import Borrows

#: Modules and packages that open connections and keep them. A pool's are noted when they are taken.
_POOLS = ("asyncpg.pool", "pgwatch_sessions.postgres", "psycopg_pool", "sqlalchemy")
_DJANGO = ("django",)
#: Packages between the line that opens a connection and the driver.
_BETWEEN = ("asyncio", "asyncpg", "contextlib", "pgwatch_sessions.pools", "psycopg", "psycopg_binary", "uvloop")


def opened_key(connection: object) -> Hashable:
    """Return the key of a connection that was opened without a pool."""
    return "opened", id(connection)


def watch_asyncpg(borrows: Borrows) -> None:
    """Note connections of asyncpg and of its pools."""
    from asyncpg.connection import Connection  # noqa: PLC0415  # only where it is installed
    from asyncpg.pool import Pool  # noqa: PLC0415  # as above

    _watch_opening(borrows, Connection, kind="asyncpg connection, opened")
    pool: Any = Pool
    acquire = pool._acquire
    where = borrows.safely(capture)

    @borrows.safely
    def took(proxy: Any, place: CodePlace | None) -> None:
        connection = proxy._con
        reference = weakref.ref(connection)
        borrows.took(
            ("asyncpg", id(connection)),
            kind="connection of an asyncpg pool, taken",
            place=place,
            connection=connection,
            # Also a connection that was closed or killed is back: its place in the pool is free.
            is_out=lambda: (con := reference()) is not None and con._proxy is not None and not con.is_closed(),
        )

    @functools.wraps(acquire)
    async def acquired(self: Any, timeout: float | None) -> Any:  # noqa: ASYNC109  # asyncpg's own signature
        place = where()
        proxy = await acquire(self, timeout)
        took(proxy, place)
        return proxy

    pool._acquire = acquired


def watch_psycopg(borrows: Borrows) -> None:
    """Note connections of psycopg, sync and async."""
    import psycopg  # noqa: PLC0415  # only where it is installed

    for each in (psycopg.Connection, psycopg.AsyncConnection):
        _watch_opening(borrows, each, kind="psycopg connection, opened")


def watch_psycopg_pool(borrows: Borrows) -> None:
    """Note connections of psycopg's pools, sync and async."""
    from psycopg_pool import AsyncConnectionPool, ConnectionPool  # noqa: PLC0415  # only where it is installed

    get, put = ConnectionPool.getconn, ConnectionPool.putconn
    get_async, put_async = AsyncConnectionPool.getconn, AsyncConnectionPool.putconn
    where = borrows.safely(capture)

    @borrows.safely
    def took(pool: Any, connection: Any, place: CodePlace | None) -> None:
        to_pool, to_connection = weakref.ref(pool), weakref.ref(connection)
        borrows.took(
            _pooled_key(connection),
            kind="connection of a psycopg pool, taken",
            place=place,
            connection=connection,
            # A connection that was closed and not put back keeps its place in the pool, while there is a pool.
            is_out=lambda: is_open(to_pool()) or is_open(to_connection()),
        )

    @functools.wraps(get)
    def taken(self: Any, timeout: float | None = None) -> Any:
        place = where()
        connection = get(self, timeout)
        took(self, connection, place)
        return connection

    @functools.wraps(put)
    def returned(self: Any, conn: Any) -> None:
        borrows.returned(_pooled_key(conn))  # before: afterwards another thread may have it
        put(self, conn)

    @functools.wraps(get_async)
    async def taken_async(self: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109  # psycopg_pool's signature
        place = where()
        connection = await get_async(self, timeout)
        took(self, connection, place)
        return connection

    @functools.wraps(put_async)
    async def returned_async(self: Any, conn: Any) -> None:
        borrows.returned(_pooled_key(conn))
        await put_async(self, conn)

    ConnectionPool.getconn, ConnectionPool.putconn = taken, returned  # type: ignore[method-assign]
    AsyncConnectionPool.getconn, AsyncConnectionPool.putconn = taken_async, returned_async  # type: ignore[method-assign]


def _pooled_key(connection: object) -> Hashable:
    return "psycopg", id(connection)


def _watch_opening(borrows: Borrows, connections: Any, *, kind: str) -> None:
    """Note each new object of a class of connections. One that a pool opens is not out."""
    make = connections.__init__

    @borrows.safely
    def note(connection: Any, caller: FrameType) -> None:
        opener = _opener(caller)
        if opener != "django":
            borrows.opened(connection)
        if opener == "pool":
            return
        reference, thread = weakref.ref(connection), threading.current_thread()
        borrows.took(
            opened_key(connection),
            kind=kind,
            place=capture(),
            # Django keeps a connection for each thread, and its TestCase a transaction for all tests of a class. So
            # the server is not asked about it, and only one that outlives its thread is left.
            connection=None if opener == "django" else connection,
            is_out=lambda: is_open(reference()) and not (opener == "django" and thread.is_alive()),
        )

    @functools.wraps(make)
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        note(self, sys._getframe(1))

    connections.__init__ = made


def is_open(connection: Any) -> bool:
    """Tell whether a connection, or a pool of psycopg, exists and is not closed."""
    if connection is None:
        return False
    return not (connection.is_closed() if hasattr(connection, "is_closed") else connection.closed)


def backend_pid(connection: Any) -> int | None:
    """Return the pid of the server's process for a connection; None if it is closed or not ready."""
    if not is_open(connection):
        return None
    try:
        return int(
            connection.get_server_pid() if hasattr(connection, "get_server_pid") else connection.pgconn.backend_pid
        )
    except Exception:  # noqa: BLE001  a driver says in many ways that a connection is just being opened or closed
        return None


def _opener(frame: FrameType | None) -> str:
    """Return who opens a connection, given who calls its class: `pool`, `django` or `application`."""
    while frame is not None and frame.f_code.co_name == "__init__":  # of a class that an application derived
        frame = frame.f_back
    while frame is not None:
        module = f"{frame.f_globals.get('__name__', '')}."
        for opener, packages in (("pool", _POOLS), ("django", _DJANGO)):
            if module.startswith(tuple(f"{package}." for package in packages)):
                return opener
        if not module.startswith(tuple(f"{package}." for package in _BETWEEN)):
            return "application"
        frame = frame.f_back
    return "application"
