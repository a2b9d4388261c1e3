"""Healthy lives lived for real, for longer than a leak takes to be found: nobody is warned of, no leak is diagnosed."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from fastapi import FastAPI

from pgwatch_sessions.core.findings import Verdict
from tests.support.leaking.applications import (
    NAME,
    async_engine,
    connecting,
    on_engine,
    on_pool,
    on_sync_engine,
    sync_engine,
)
from tests.support.leaking.lives import batch, selling, sitting
from tests.support.leaking.serving import crowd, serving, visitor
from tests.support.leaking.watching import HOLD_LIMIT, Life, Watch
from tests.support.servers import Database

WATCHED = 3.5 * HOLD_LIMIT


async def rush(address: str) -> None:
    """Come as a crowd, and leave."""
    await asyncio.gather(*(visitor(address, "/orders", pause=0.01, times=15) for _ in range(12)))


def rush_and_one(address: str) -> Sequence[Life]:
    """Come as a crowd, and leave one visitor behind, who needs one session of the many."""
    return rush(address), visitor(address, "/orders", pause=0.2)


async def streams(address: str) -> None:
    """Read one stream for longer than the hold limit, then one after the other begins."""
    path = f"/stream?seconds={1.4 * HOLD_LIMIT}"
    await visitor(address, path, times=1)
    async with asyncio.TaskGroup() as readers:
        for _ in range(20):
            readers.create_task(visitor(address, path, times=1))
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthy:
    """An application in order, and how it is used."""

    application: Callable[[str], FastAPI]
    use: Callable[[str], Sequence[Life]]


LIVES = {
    "QueuePool, steady": Healthy(
        application=lambda dsn: on_engine(async_engine(dsn, size=2, application_name=NAME)),
        use=lambda address: crowd(6, address, "/orders"),
    ),
    "QueuePool of threads, steady": Healthy(
        application=lambda dsn: on_sync_engine(sync_engine(dsn)), use=lambda address: crowd(6, address, "/orders")
    ),
    "AUTOCOMMIT pool, rush and one visitor": Healthy(
        application=lambda dsn: on_engine(
            async_engine(dsn, size=10, isolation_level="AUTOCOMMIT", application_name=NAME)
        ),
        use=rush_and_one,
    ),
    "asyncpg pool, rush and one visitor": Healthy(application=on_pool, use=rush_and_one),
    "asyncpg pool, rush and silence": Healthy(application=on_pool, use=lambda address: [rush(address)]),
    "connection per request": Healthy(application=connecting, use=lambda address: crowd(3, address, "/orders")),
    "streams that hold their session": Healthy(
        application=lambda dsn: on_engine(async_engine(dsn, application_name=NAME)),
        use=lambda address: [streams(address), *crowd(2, address, "/orders")],
    ),
    "cancelled requests": Healthy(
        application=lambda dsn: on_engine(async_engine(dsn, application_name=NAME)),
        use=lambda address: [*crowd(3, address, "/cancelled"), *crowd(2, address, "/orders")],
    ),
}


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_healthy_applications_are_left_in_peace(shop: Database, watch: Watch, life: Healthy) -> None:
    """Pools at work, bursting and silent; sessions that streams hold; connections that are cancelled or made anew."""
    with serving(life.application(shop.dsn())) as address:
        watch.live_for(WATCHED, *life.use(address))
    assert_nobody_leaks(watch)


def test_jobs_leaders_listeners_and_consoles_are_left_in_peace(shop: Database, watch: Watch) -> None:
    """Batches that think between the statements of one transaction, and sessions that sit there by intent."""
    dsn = shop.dsn()
    watch.live_for(
        WATCHED,
        *(batch(dsn, thinks=HOLD_LIMIT / 2) for _ in range(4)),
        sitting(dsn, "scheduler", "SELECT pg_advisory_lock(1)"),
        sitting(dsn, "worker", "LISTEN jobs"),
        sitting(dsn, "psql", "BEGIN; SELECT * FROM orders"),
        selling(dsn, "billing"),
    )
    assert_nobody_leaks(watch)


def test_a_deploy_is_left_in_peace(shop: Database, watch: Watch) -> None:
    """New instances beside the old one, which then goes, and all its sessions with it."""
    for _ in range(3):
        with ExitStack() as old_and_new:
            addresses = [
                old_and_new.enter_context(serving(on_engine(async_engine(shop.dsn(), application_name=NAME))))
                for _ in range(2)
            ]
            watch.live_for(WATCHED / 3, *(visit for address in addresses for visit in crowd(2, address, "/orders")))
    assert_nobody_leaks(watch)


def test_a_pool_that_is_too_small_is_called_saturated(shop: Database, watch: Watch) -> None:
    """All its sessions are busy and turn over: that is no leak, and the diagnosis says what it is."""
    engine = async_engine(shop.dsn(), size=2, overflow=0, application_name=NAME)
    with serving(on_engine(engine)) as address:
        watch.live(
            *(visitor(address, "/report", pause=0) for _ in range(8)),
            until=lambda watch: watch.verdict(NAME) is Verdict.SATURATED and watch.seconds > WATCHED,
        )
    assert_nobody_leaks(watch)


def assert_nobody_leaks(watch: Watch) -> None:
    """Fail if anybody was ever warned of, or said to leak or to be blocked."""
    assert watch.warnings() == set(), watch.told()
    assert watch.verdicts().isdisjoint({Verdict.LEAKING, Verdict.BLOCKED}), watch.told()
