"""Cost of a checkout of an instrumented pool, beside the bare pool, for each library."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from pgwatch_sessions.demo.postgres import Postgres, cluster, packaged, runnable, serving
from pgwatch_sessions.pools import instrument, uninstrument
from pgwatch_sessions.pools.ledger import Capture
from tests.bench.tables import Limit, limits, table

#: How often each variant has its turn, how many times it is measured then, and the checkouts of a measurement.
_TURNS, _TIMES, _CHECKOUTS = 20, 20, 100
#: What is measured: the bare pool, then the ledger with more and more of the borrower. None is the bare pool.
_VARIANTS: dict[str, Capture | None] = {"bare": None, "ledger": "off", "and site": "site", "and stack": "stack"}

#: Microseconds for each checkout and return, by variant.
Costs = dict[str, float]


def bench() -> Iterator[str]:
    """Measure the CPU time of the variants in turn, so that other load on the machine meets all of them."""
    with runnable(packaged(18)) as binaries, cluster(binaries) as data, serving(data) as server:
        costs = {
            "SQLAlchemy, psycopg": _sqlalchemy(server),
            "SQLAlchemy, asyncpg": asyncio.run(_async_sqlalchemy(server)),
            "psycopg_pool": _psycopg(server),
            "asyncpg": asyncio.run(_asyncpg(server)),
        }
    rows = [[pool, *each.values(), each["and site"] - each["bare"]] for pool, each in costs.items()]
    yield table(
        f"pools: us of CPU for each checkout and return, in the fastest of {_TURNS * _TIMES} rounds",
        ["", *_VARIANTS, "ledger and site"],
        rows,
    )
    yield limits(
        *(
            Limit(what=f"{pool}: ledger and site", measured=each["and site"] - each["bare"], bound=5, unit=" us")
            for pool, each in costs.items()
        )
    )


def _sqlalchemy(server: Postgres) -> Costs:
    engine = create_engine(server.dsn().replace("postgresql:", "postgresql+psycopg:"))

    def checkout() -> None:
        engine.raw_connection().close()

    costs = _measured(engine, lambda: _nested(checkout, 10))
    engine.dispose()
    return costs


def _psycopg(server: Postgres) -> Costs:
    with ConnectionPool(server.dsn(), min_size=1, open=True) as pool:

        def checkout() -> None:
            pool.putconn(pool.getconn())

        return _measured(pool, lambda: _nested(checkout, 10))


async def _async_sqlalchemy(server: Postgres) -> Costs:
    engine = create_async_engine(server.dsn().replace("postgresql:", "postgresql+asyncpg:"))

    async def checkout() -> None:
        connection = await engine.connect()
        await connection.close()

    costs = await _measured_async(engine, lambda: _nested_async(checkout, 10))
    await engine.dispose()
    return costs


async def _asyncpg(server: Postgres) -> Costs:
    async with asyncpg.create_pool(server.dsn(), min_size=1, max_size=1) as pool:

        async def checkout() -> None:
            await pool.release(await pool.acquire())

        return await _measured_async(pool, lambda: _nested_async(checkout, 10))


def _nested(act: Callable[[], None], levels: int) -> None:
    """Call it from as many frames as a request has."""
    if levels:
        _nested(act, levels - 1)
    else:
        for _ in range(_CHECKOUTS):
            act()


async def _nested_async(act: Callable[[], Awaitable[None]], levels: int) -> None:
    if levels:
        await _nested_async(act, levels - 1)
    else:
        for _ in range(_CHECKOUTS):
            await act()


def _measured(pool: Any, work: Callable[[], None]) -> Costs:
    times: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
    for variant in [*_VARIANTS] * _TURNS:
        _instrument(pool, variant)
        for _ in range(_TIMES):
            begun = time.process_time()
            work()
            times[variant].append(time.process_time() - begun)
        uninstrument(pool)
    return _fastest(times)


async def _measured_async(pool: Any, work: Callable[[], Awaitable[None]]) -> Costs:
    times: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
    for variant in [*_VARIANTS] * _TURNS:
        _instrument(pool, variant)
        for _ in range(_TIMES):
            begun = time.process_time()
            await work()
            times[variant].append(time.process_time() - begun)
        uninstrument(pool)
    return _fastest(times)


def _instrument(pool: Any, variant: str) -> None:
    capture = _VARIANTS[variant]
    if capture is not None:
        instrument(pool, name="bench", capture=capture)
    gc.collect()


def _fastest(times: dict[str, list[float]]) -> Costs:
    return {variant: min(each) / _CHECKOUTS * 1e6 for variant, each in times.items()}
