"""Healthy applications on a real server, for longer than it takes to find a leak: no warnings, no leak diagnosed."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from fastapi import FastAPI

from pgwatch_sessions.core.findings import Verdict
from tests.support.leaking.applications import (
    NAME,
    app_connecting_per_request,
    app_on_async_engine,
    app_on_asyncpg_pool,
    app_on_sync_engine,
    async_engine,
    sync_engine,
)
from tests.support.leaking.monitoring import HOLD_LIMIT, Monitor, Workload
from tests.support.leaking.serving import serve, visit, visitors
from tests.support.leaking.workloads import run_batch, sell_stock, stay_idle
from tests.support.servers import Database

DURATION = 3.5 * HOLD_LIMIT


async def rush(address: str) -> None:
    """Send the requests of 12 visitors at once, then stop."""
    await asyncio.gather(*(visit(address, "/orders", pause=0.01, times=15) for _ in range(12)))


def rush_and_one(address: str) -> Sequence[Workload]:
    """Send a rush of requests, and those of one more visitor, who needs only one of the sessions."""
    return rush(address), visit(address, "/orders", pause=0.2)


async def streams(address: str) -> None:
    """Read one stream for longer than the hold limit, then start 20 more, one every 0.1 s."""
    path = f"/stream?seconds={1.4 * HOLD_LIMIT}"
    await visit(address, path, times=1)
    async with asyncio.TaskGroup() as readers:
        for _ in range(20):
            readers.create_task(visit(address, path, times=1))
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthyScenario:
    """An application without leaks, and the requests to it."""

    application: Callable[[str], FastAPI]
    workload: Callable[[str], Sequence[Workload]]


SCENARIOS = {
    "QueuePool, steady": HealthyScenario(
        application=lambda dsn: app_on_async_engine(async_engine(dsn, size=2, application_name=NAME)),
        workload=lambda address: visitors(6, address, "/orders"),
    ),
    "QueuePool of threads, steady": HealthyScenario(
        application=lambda dsn: app_on_sync_engine(sync_engine(dsn)),
        workload=lambda address: visitors(6, address, "/orders"),
    ),
    "AUTOCOMMIT pool, rush and one visitor": HealthyScenario(
        application=lambda dsn: app_on_async_engine(
            async_engine(dsn, size=10, isolation_level="AUTOCOMMIT", application_name=NAME)
        ),
        workload=rush_and_one,
    ),
    "asyncpg pool, rush and one visitor": HealthyScenario(application=app_on_asyncpg_pool, workload=rush_and_one),
    "asyncpg pool, rush and silence": HealthyScenario(
        application=app_on_asyncpg_pool, workload=lambda address: [rush(address)]
    ),
    "connection per request": HealthyScenario(
        application=app_connecting_per_request, workload=lambda address: visitors(3, address, "/orders")
    ),
    "streams that hold their session": HealthyScenario(
        application=lambda dsn: app_on_async_engine(async_engine(dsn, application_name=NAME)),
        workload=lambda address: [streams(address), *visitors(2, address, "/orders")],
    ),
    "cancelled requests": HealthyScenario(
        application=lambda dsn: app_on_async_engine(async_engine(dsn, application_name=NAME)),
        workload=lambda address: [*visitors(3, address, "/cancelled"), *visitors(2, address, "/orders")],
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_healthy_applications_cause_no_warnings(shop: Database, monitor: Monitor, scenario: HealthyScenario) -> None:
    """Busy, bursting and idle pools, streams, cancelled requests, and a new connection per request."""
    with serve(scenario.application(shop.dsn())) as address:
        monitor.poll_for(DURATION, *scenario.workload(address))
    assert_nobody_leaks(monitor)


def test_jobs_leaders_listeners_and_consoles_cause_no_warnings(shop: Database, monitor: Monitor) -> None:
    """Batches pause between the statements of one transaction, and other sessions are idle on purpose."""
    dsn = shop.dsn()
    monitor.poll_for(
        DURATION,
        *(run_batch(dsn, pause=HOLD_LIMIT / 2) for _ in range(4)),
        stay_idle(dsn, "scheduler", "SELECT pg_advisory_lock(1)"),
        stay_idle(dsn, "worker", "LISTEN jobs"),
        stay_idle(dsn, "psql", "BEGIN; SELECT * FROM orders"),
        sell_stock(dsn, "billing"),
    )
    assert_nobody_leaks(monitor)


def test_a_deploy_causes_no_warnings(shop: Database, monitor: Monitor) -> None:
    """New instances replace the old ones three times, and the old sessions end."""
    for _ in range(3):
        with ExitStack() as instances:
            addresses = [
                instances.enter_context(serve(app_on_async_engine(async_engine(shop.dsn(), application_name=NAME))))
                for _ in range(2)
            ]
            monitor.poll_for(
                DURATION / 3, *(visitor for address in addresses for visitor in visitors(2, address, "/orders"))
            )
    assert_nobody_leaks(monitor)


def test_a_pool_that_is_too_small_is_called_saturated(shop: Database, monitor: Monitor) -> None:
    """All sessions of the pool are busy with short requests, which is not a leak."""
    engine = async_engine(shop.dsn(), size=2, overflow=0, application_name=NAME)
    with serve(app_on_async_engine(engine)) as address:
        monitor.poll_until(
            *(visit(address, "/report", pause=0) for _ in range(8)),
            until=lambda monitor: monitor.verdict(NAME) is Verdict.SATURATED and monitor.seconds > DURATION,
        )
    assert_nobody_leaks(monitor)


def assert_nobody_leaks(monitor: Monitor) -> None:
    """Assert that there never was a warning, nor a diagnosis of leaking or blocked."""
    assert monitor.warned_applications() == set(), monitor.report()
    assert monitor.all_verdicts().isdisjoint({Verdict.LEAKING, Verdict.BLOCKED}), monitor.report()
