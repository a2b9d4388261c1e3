"""Real leaks are found with their client, kind, site and exact sessions; no other client is accused."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fastapi import FastAPI

from pgwatch_sessions.core.events import LeakOpened
from pgwatch_sessions.core.findings import LeakKind, Verdict
from tests.support.leaking import mistakes
from tests.support.leaking.applications import (
    NAME,
    app_connecting_per_request,
    app_on_async_engine,
    app_on_asyncpg_pool,
    app_on_sync_engine,
    async_engine,
    sync_engine,
    tagging_engine,
)
from tests.support.leaking.monitoring import Monitor
from tests.support.leaking.serving import serve, visit, visitors
from tests.support.leaking.workloads import sell_stock
from tests.support.servers import Database

SITE = "SELECT invoices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """An application with a mistake, and the expected finding."""

    application: Callable[[str], FastAPI]
    kind: LeakKind
    site: str = SITE


#: Held sessions: each session is judged by itself.
HELD = {
    "async session never closed": Leak(
        application=lambda dsn: app_on_async_engine(
            async_engine(dsn, application_name=NAME), mistakes.session_never_closed
        ),
        kind=LeakKind.TRANSACTION_HELD,
    ),
    "sync session never closed": Leak(
        application=lambda dsn: app_on_sync_engine(sync_engine(dsn), mistakes.sync_session_never_closed),
        kind=LeakKind.TRANSACTION_HELD,
    ),
    "failed statement not rolled back": Leak(
        application=lambda dsn: app_on_async_engine(
            async_engine(dsn, application_name=NAME), mistakes.failure_not_rolled_back
        ),
        kind=LeakKind.TRANSACTION_HELD,
    ),
    "asyncpg transaction only begun": Leak(
        application=lambda dsn: app_on_asyncpg_pool(dsn, mistakes.only_begun),
        kind=LeakKind.TRANSACTION_HELD,
        site="BEGIN",
    ),
    "asyncpg pool never released": Leak(
        application=lambda dsn: app_on_asyncpg_pool(dsn, mistakes.never_released), kind=LeakKind.CONNECTION_HELD
    ),
    "route in comments, no application_name": Leak(
        application=lambda dsn: app_on_async_engine(tagging_engine(dsn), mistakes.session_never_closed),
        kind=LeakKind.TRANSACTION_HELD,
        site="/mistake",
    ),
}
#: Growing origins: judged by sessions that are never used again while new ones are opened.
GROWING = {
    "asyncpg connection kept": Leak(application=app_connecting_per_request, kind=LeakKind.ORIGIN_GROWTH),
    "autocommit session never closed": Leak(
        application=lambda dsn: app_on_async_engine(
            async_engine(dsn, isolation_level="AUTOCOMMIT", application_name=NAME), mistakes.session_never_closed
        ),
        kind=LeakKind.ORIGIN_GROWTH,
    ),
    "engine created for each request": Leak(
        application=lambda dsn: app_on_async_engine(
            async_engine(dsn, application_name=NAME), mistakes.engine_per_request
        ),
        kind=LeakKind.ORIGIN_GROWTH,
        site="(not shown)",
    ),
}


@pytest.mark.parametrize("leak", HELD.values(), ids=HELD)
def test_held_sessions_are_found(shop: Database, monitor: Monitor, leak: Leak) -> None:
    """Among healthy requests and another healthy client, one finding with a warning has exactly the leaked sessions."""
    leaked = 8

    def all_leaked_sessions_found(monitor: Monitor) -> bool:
        finding = monitor.open_warning(NAME, leak.kind, leak.site)
        return finding is not None and len(finding.sessions) == leaked

    with serve(leak.application(shop.dsn())) as address:
        monitor.poll_until(
            visit(address, "/mistake", pause=0.15, times=leaked),
            *visitors(2, address, "/orders"),
            sell_stock(shop.dsn(), "billing"),
            until=all_leaked_sessions_found,
        )
    assert_only_shop_leaks(monitor)


@pytest.mark.parametrize("leak", GROWING.values(), ids=GROWING)
def test_growth_is_found(shop: Database, monitor: Monitor, leak: Leak) -> None:
    """Among healthy requests and another healthy client, the growth becomes one finding with a warning."""
    with serve(leak.application(shop.dsn())) as address:
        finding = monitor.poll_until(
            visit(address, "/mistake", pause=0.25, times=20),
            *visitors(2, address, "/orders"),
            sell_stock(shop.dsn(), "billing"),
            until=lambda monitor: monitor.open_warning(NAME, leak.kind, leak.site),
        )
    assert len(finding.sessions) >= 4
    assert finding.rate_per_minute > 0
    assert_only_shop_leaks(monitor)


def assert_only_shop_leaks(monitor: Monitor) -> None:
    """Assert that the shop has one finding, and that no other client was accused."""
    assert monitor.warned_applications() == {NAME}
    assert monitor.count_events(LeakOpened) == 1, monitor.report()
    assert (monitor.verdict(NAME), monitor.verdict("billing")) == (Verdict.LEAKING, Verdict.OK)
