"""Cost of tags: for each borrow and statement, and of more texts than the driver keeps prepared."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from statistics import median

import asyncpg

from pgwatch_sessions.demo.postgres import cluster, packaged, runnable, serving
from pgwatch_sessions.pools import tagged_connection, tags
from pgwatch_sessions.pools.tagging.tagger import StatementTagger
from tests.bench.tables import Limit, limits, table

_ROUNDS = 9
_TIMES = 20_000
#: Each route sends four of the statements.
_ROUTES = 50
_STATEMENTS = tuple(
    f"SELECT count(*) FROM pg_class WHERE relpages > $1 AND {number} = {number}" for number in range(20)
)
#: Whether statements are tagged, and how many prepared ones the driver keeps; 100 is its default.
_VARIANTS = {"untagged": (False, 100), "tagged": (True, 100), "tagged, cache of 300": (True, 300)}


def bench() -> Iterator[str]:
    """Measure our own part as CPU time, then statements as they pass through asyncpg's pool."""
    with tags(route="/orders/{order}"):
        tagger = StatementTagger("orders")
        borrow = tagger.borrow()
        borrowing = _microseconds(tagger.borrow)
        tagging = _microseconds(lambda: tagger.tagged(_STATEMENTS[0], borrow))
    yield table("tags: us of CPU", ["", "us"], [["borrow", borrowing], ["statement", tagging]])
    with runnable(packaged(18)) as binaries, cluster(binaries) as data, serving(data) as server:
        costs = asyncio.run(_through_asyncpg(server.dsn()))
    yield table(
        f"tags: us for each statement, {_ROUTES} routes with 4 of {len(_STATEMENTS)} statements, asyncpg, median",
        ["", *costs],
        [["with its borrow", *costs.values()]],
    )
    yield limits(Limit(what="borrow and statement", measured=borrowing + tagging, bound=10, unit=" us"))


def _microseconds(act: object) -> float:
    assert callable(act)
    rounds = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        for _ in range(_TIMES):
            act()
        rounds.append(time.process_time() - begun)
    return median(rounds) / _TIMES * 1e6


async def _through_asyncpg(dsn: str) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in _VARIANTS}
    async with AsyncExitStack() as stack:
        pools = {
            name: await stack.enter_async_context(
                asyncpg.create_pool(
                    dsn,
                    min_size=1,
                    max_size=1,
                    statement_cache_size=size,
                    connection_class=tagged_connection(application="orders") if tagged else asyncpg.Connection,
                )
            )
            for name, (tagged, size) in _VARIANTS.items()
        }
        for _ in range(_ROUNDS):
            for name, pool in pools.items():
                begun = time.perf_counter()
                await _all_routes(pool)
                times[name].append(time.perf_counter() - begun)
    return {name: median(each) / (4 * _ROUTES) * 1e6 for name, each in times.items()}


async def _all_routes(pool: asyncpg.Pool) -> None:
    for route in range(_ROUTES):
        with tags(route=f"/{route}"):
            async with pool.acquire() as connection:
                for step in range(4):
                    await connection.fetchval(_STATEMENTS[(route + 5 * step) % len(_STATEMENTS)], 1000)
