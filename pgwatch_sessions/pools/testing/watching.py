"""Begins to watch the database libraries of this process, once and for all."""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Mapping

from pgwatch_sessions.pools.testing import drivers
from pgwatch_sessions.pools.testing.borrows import Borrows


@functools.cache
def watched_borrows() -> Borrows:
    """Return the borrows of this process. The first call imports and watches each library that is installed.

    It lasts until the process ends: it changes classes that other code may have changed since, so there is no way back.
    """
    borrows = Borrows()
    for library, watch in _LIBRARIES.items():
        if importlib.util.find_spec(library) is not None:
            with contextlib.suppress(ImportError):  # as of psycopg without libpq: then nobody can use it
                watch(borrows)
    return borrows


def _watch_sqlalchemy(borrows: Borrows) -> None:
    from pgwatch_sessions.pools.testing.sqlalchemy_pools import watch_pools  # noqa: PLC0415  # only if installed

    watch_pools(borrows)


_LIBRARIES: Mapping[str, Callable[[Borrows], None]] = {
    "asyncpg": drivers.watch_asyncpg,
    "psycopg": drivers.watch_psycopg,
    "psycopg_pool": drivers.watch_psycopg_pool,
    "sqlalchemy": _watch_sqlalchemy,
}
