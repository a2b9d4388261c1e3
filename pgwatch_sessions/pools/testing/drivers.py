"""Notes who opens connections of asyncpg and psycopg, and who takes them from the pools of these two."""

# ruff: noqa: SLF001  the pool of asyncpg has neither events nor public attributes

import functools
import sys
import threading
import weakref
from collections.abc import Hashable
from types import FrameType
from typing import Any

from pgwatch_sessions.pools.sites import capture
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
    from asyncpg.pool import Pool  # noqa: PLC0415

    _watch_opening(borrows, Connection, kind="asyncpg connection, opened")
    pool: Any = Pool
    acquire = pool._acquire

    @functools.wraps(acquire)
    async def acquired(self: Any, timeout: float | None) -> Any:  # noqa: ASYNC109
        place = capture()
        proxy = await acquire(self, timeout)
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
        return proxy

    pool._acquire = acquired


def watch_psycopg(borrows: Borrows) -> None:
    """Note connections of psycopg, sync and async."""
    import psycopg  # noqa: PLC0415

    for each in (psycopg.Connection, psycopg.AsyncConnection):
        _watch_opening(borrows, each, kind="psycopg connection, opened")


def watch_psycopg_pool(borrows: Borrows) -> None:
    """Note connections of psycopg's pools, sync and async."""
    from psycopg_pool import AsyncConnectionPool, ConnectionPool  # noqa: PLC0415

    get, put = ConnectionPool.getconn, ConnectionPool.putconn
    get_async, put_async = AsyncConnectionPool.getconn, AsyncConnectionPool.putconn

    @functools.wraps(get)
    def taken(self: Any, timeout: float | None = None) -> Any:
        place = capture()
        connection = get(self, timeout)
        _took(borrows, connection, place)
        return connection

    @functools.wraps(put)
    def returned(self: Any, conn: Any) -> None:
        put(self, conn)
        borrows.returned(("psycopg", id(conn)))

    @functools.wraps(get_async)
    async def taken_async(self: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        place = capture()
        connection = await get_async(self, timeout)
        _took(borrows, connection, place)
        return connection

    @functools.wraps(put_async)
    async def returned_async(self: Any, conn: Any) -> None:
        await put_async(self, conn)
        borrows.returned(("psycopg", id(conn)))

    ConnectionPool.getconn, ConnectionPool.putconn = taken, returned  # type: ignore[method-assign]
    AsyncConnectionPool.getconn, AsyncConnectionPool.putconn = taken_async, returned_async  # type: ignore[method-assign]


def _took(borrows: Borrows, connection: Any, place: Any) -> None:
    reference = weakref.ref(connection)
    borrows.took(
        ("psycopg", id(connection)),
        kind="connection of a psycopg pool, taken",
        place=place,
        connection=connection,
        is_out=lambda: is_open(reference()),
    )


def _watch_opening(borrows: Borrows, connections: Any, *, kind: str) -> None:
    """Note each new object of a class of connections. One that a pool opens is not out."""
    make = connections.__init__

    @functools.wraps(make)
    def made(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        borrows.opened(self)
        opener = _opener(sys._getframe(1))
        if opener == "pool":
            return
        reference, thread = weakref.ref(self), threading.current_thread()
        borrows.took(
            opened_key(self),
            kind=kind,
            place=capture(),
            connection=self,
            # Django keeps a connection for each thread. Only one that outlives its thread is left.
            is_out=lambda: is_open(reference()) and not (opener == "django" and thread.is_alive()),
        )

    connections.__init__ = made


def is_open(connection: Any) -> bool:
    """Tell whether a connection of asyncpg or psycopg exists and is not closed."""
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
    """Return who opens a connection: `pool`, `django` or `application`."""
    while frame is not None:
        module = f"{frame.f_globals.get('__name__', '')}."
        for opener, packages in (("pool", _POOLS), ("django", _DJANGO)):
            if module.startswith(tuple(f"{package}." for package in packages)):
                return opener
        if not module.startswith(tuple(f"{package}." for package in _BETWEEN)):
            return "application"
        frame = frame.f_back
    return "application"
