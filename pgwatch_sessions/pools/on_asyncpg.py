"""Keeps the ledger of an asyncpg pool.

asyncpg has no events, so the pool's class is replaced by a subclass that wraps four methods. A connection that is
closed or killed while it is out frees its place in the pool without a release: each reading asks asyncpg whether an
entry is still right.
"""

from collections.abc import Hashable
from contextvars import ContextVar
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from asyncpg.pool import Pool

from pgwatch_sessions.pools.attachment import Attachment, Options
from pgwatch_sessions.pools.ledger import Entry, Ledger, numbers, wait_end
from pgwatch_sessions.pools.snapshot import Limits

#: Where `acquire()` was called. Before Python 3.12, `asyncio.wait_for` awaits it in a task without the caller's stack.
_asked_from: ContextVar[Any] = ContextVar("pgwatch_sessions_pools_asked_from", default=None)


def attach(pool: Any, options: Options) -> Attachment:
    """Keep a ledger for a pool. Both live as long as the pool does."""
    base = type(pool)
    ledger = Ledger(
        options.name(_default_name(pool)),
        kind=f"asyncpg {base.__name__}",
        capture=options.capture,
        limits=lambda: Limits(max=pool.get_max_size(), idle_max=pool.get_max_size(), idle_min=pool.get_min_size()),
        idle=lambda _: pool.get_idle_size(),
        still_out=_still_out,
        on_return=options.on_return,
    )
    watched = _watched(base, ledger)
    pool.__class__ = watched

    def undo() -> None:
        if type(pool) is watched:
            pool.__class__ = base

    return Attachment(
        ledger=ledger,
        covers=lambda other: type(other) is watched,
        exists=lambda: not pool.is_closing(),
        undo=undo,
    )


def accepts(target: object) -> bool:
    """Tell whether this is an asyncpg pool."""
    return isinstance(target, Pool)


def _watched(base: Any, ledger: Ledger) -> Any:
    """Return a subclass that tells the ledger. It may have no attributes, or Python refuses to replace the class."""

    async def release(
        self: Any,
        connection: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # asyncpg's own signature
    ) -> Any:
        try:
            return await base.release(self, connection, timeout=timeout)
        finally:
            # It is still out if this task was cancelled: asyncpg goes on with the release.
            if getattr(connection, "_con", None) is None:
                ledger.give_back(id(connection))

    async def _get_new_connection(self: Any) -> Any:
        begun = monotonic()
        connection = await base._get_new_connection(self)  # noqa: SLF001  # there is no public method to wrap
        ledger.created(monotonic() - begun)
        return connection

    methods = {
        "acquire": _acquire_method(base, ledger),
        "_acquire": _acquiring_method(base, ledger),
        "release": release,
        "_get_new_connection": _get_new_connection,
    }
    return type(base.__name__, (base,), {"__slots__": (), "__module__": base.__module__, **methods})


def _acquire_method(base: Any, ledger: Ledger) -> Any:
    def acquire(self: Any, *, timeout: float | None = None) -> Any:
        if ledger.on:
            try:
                _asked_from.set(ledger.where())
            except Exception as error:  # noqa: BLE001  # the application must get its connection
                ledger.switch_off(error)
        return base.acquire(self, timeout=timeout)

    return acquire


def _acquiring_method(base: Any, ledger: Ledger) -> Any:
    waits = ledger.waits

    async def _acquire(self: Any, timeout: float | None) -> Any:  # noqa: ASYNC109  # asyncpg's own signature
        if not ledger.on:
            return await base._acquire(self, timeout)  # noqa: SLF001  # it is wrapped here
        number = next(numbers)
        waits[number] = monotonic()
        try:
            proxy = await base._acquire(self, timeout)  # noqa: SLF001  # it is wrapped here
        except BaseException as error:
            ledger.end_wait(number, wait_end(error, TimeoutError))
            raise
        try:
            # The pool keeps the holder; the proxy is the borrower's, and before asyncpg 0.31 has no weak references.
            ledger.borrow(id(proxy), _asked_from.get(), None, number, proxy._holder)  # noqa: SLF001  # not public
        except Exception as error:  # noqa: BLE001  # the application must get its connection
            ledger.switch_off(error)
        return proxy

    return _acquire


def _still_out(key: Hashable, entry: Entry) -> bool:
    holder: Any = entry.connection
    # asyncpg tells only how many are idle.
    return holder._in_use is not None and id(holder._proxy) == key  # noqa: SLF001  # not public


def _default_name(pool: Any) -> str:
    """Return host, port and database, as far as they were given to `create_pool()`."""
    dsn = next(iter(getattr(pool, "_connect_args", ())), None)
    given = getattr(pool, "_connect_kwargs", {})
    try:
        url = urlsplit(dsn or "")
        host, port, database = url.hostname, url.port, url.path.lstrip("/")
    except ValueError:  # several hosts
        host, port, database = None, None, ""
    host = given.get("host") or host or "localhost"
    return f"{host}:{given.get('port') or port or 5432}/{given.get('database') or database or ''}"
