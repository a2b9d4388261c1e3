"""Leaks made for real are found: who, how and where, exactly the sessions that were lost, and nobody else."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fastapi import FastAPI

from pgwatch_sessions.core.events import LeakOpened
from pgwatch_sessions.core.findings import LeakKind, Verdict
from tests.support.leaking import mistakes
from tests.support.leaking.applications import (
    NAME,
    async_engine,
    connecting,
    on_engine,
    on_pool,
    on_sync_engine,
    sync_engine,
    tagging_engine,
)
from tests.support.leaking.lives import selling
from tests.support.leaking.serving import crowd, serving, visitor
from tests.support.leaking.watching import Watch
from tests.support.servers import Database

SITE = "SELECT invoices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """An application with a mistake, and what must be found."""

    application: Callable[[str], FastAPI]
    kind: LeakKind
    site: str = SITE


#: What is held is found for each session by itself.
HELD = {
    "async session never closed": Leak(
        application=lambda dsn: on_engine(async_engine(dsn, application_name=NAME), mistakes.session_never_closed),
        kind=LeakKind.TRANSACTION_HELD,
    ),
    "sync session never closed": Leak(
        application=lambda dsn: on_sync_engine(sync_engine(dsn), mistakes.sync_session_never_closed),
        kind=LeakKind.TRANSACTION_HELD,
    ),
    "failed statement not rolled back": Leak(
        application=lambda dsn: on_engine(async_engine(dsn, application_name=NAME), mistakes.failure_not_rolled_back),
        kind=LeakKind.TRANSACTION_HELD,
    ),
    "asyncpg transaction only begun": Leak(
        application=lambda dsn: on_pool(dsn, mistakes.only_begun), kind=LeakKind.TRANSACTION_HELD, site="BEGIN"
    ),
    "asyncpg pool never released": Leak(
        application=lambda dsn: on_pool(dsn, mistakes.never_released), kind=LeakKind.CONNECTION_HELD
    ),
    "route in comments, no application_name": Leak(
        application=lambda dsn: on_engine(tagging_engine(dsn), mistakes.session_never_closed),
        kind=LeakKind.TRANSACTION_HELD,
        site="/mistake",
    ),
}
#: What grows shows by those that were passed over, and by a growth that goes on.
GROWING = {
    "asyncpg connection kept": Leak(application=connecting, kind=LeakKind.ORIGIN_GROWTH),
    "autocommit session never closed": Leak(
        application=lambda dsn: on_engine(
            async_engine(dsn, isolation_level="AUTOCOMMIT", application_name=NAME), mistakes.session_never_closed
        ),
        kind=LeakKind.ORIGIN_GROWTH,
    ),
    "engine made for each request": Leak(
        application=lambda dsn: on_engine(async_engine(dsn, application_name=NAME), mistakes.engine_per_request),
        kind=LeakKind.ORIGIN_GROWTH,
        site="(not shown)",
    ),
}


@pytest.mark.parametrize("leak", HELD.values(), ids=HELD)
def test_held_sessions_are_found(shop: Database, watch: Watch, leak: Leak) -> None:
    """Each of them, beside healthy requests and a healthy neighbour: a warning, a diagnosis, and one finding."""
    lost = 8

    def found(watch: Watch) -> bool:
        finding = watch.warned(NAME, leak.kind, leak.site)
        return finding is not None and len(finding.sessions) == lost

    with serving(leak.application(shop.dsn())) as address:
        watch.live(
            visitor(address, "/mistake", pause=0.15, times=lost),
            *crowd(2, address, "/orders"),
            selling(shop.dsn(), "billing"),
            until=found,
        )
    assert_only_shop_leaks(watch)


@pytest.mark.parametrize("leak", GROWING.values(), ids=GROWING)
def test_growth_is_found(shop: Database, watch: Watch, leak: Leak) -> None:
    """While it goes on, beside healthy requests and a healthy neighbour: a warning, a diagnosis, and one finding."""
    with serving(leak.application(shop.dsn())) as address:
        finding = watch.live(
            visitor(address, "/mistake", pause=0.25, times=20),
            *crowd(2, address, "/orders"),
            selling(shop.dsn(), "billing"),
            until=lambda watch: watch.warned(NAME, leak.kind, leak.site),
        )
    assert len(finding.sessions) >= 4
    assert finding.rate_per_minute > 0
    assert_only_shop_leaks(watch)


def assert_only_shop_leaks(watch: Watch) -> None:
    """Fail if somebody else was accused, or the shop of more than one leak."""
    assert watch.warnings() == {NAME}
    assert watch.happened(LeakOpened) == 1, watch.told()
    assert (watch.verdict(NAME), watch.verdict("billing")) == (Verdict.LEAKING, Verdict.OK)
