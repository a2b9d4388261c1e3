"""Leaks made for real that do more than fill a pool, or do not show as they are."""

from fastapi import FastAPI

from pgwatch_sessions.core.events import LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import LeakKind, Severity, Verdict
from tests.support.leaking import mistakes
from tests.support.leaking.applications import NAME, async_engine, on_engine
from tests.support.leaking.lives import selling
from tests.support.leaking.serving import crowd, serving, visitor
from tests.support.leaking.watching import HOLD_LIMIT, Watch
from tests.support.servers import Database

SITE = "SELECT invoices"


def test_one_forgotten_row_lock_blocks_others(shop: Database, watch: Watch) -> None:
    """The holder is warned of although it is alone, with those who wait as its harm; they are called blocked by it."""
    application = on_engine(async_engine(shop.dsn(), application_name=NAME), mistakes.row_locked)
    with serving(application) as address:
        finding = watch.live(
            visitor(address, "/mistake", times=1),
            *(selling(shop.dsn(), "billing", piece=1) for _ in range(3)),
            until=lambda watch: watch.warned(NAME, LeakKind.TRANSACTION_HELD, "UPDATE stock"),
        )
    (holder,) = finding.sessions
    assert (finding.severity, finding.harm.slots, finding.harm.blocked) == (Severity.WARNING, 1, 3)
    assert watch.warnings() == {NAME}
    assert (watch.verdict(NAME), watch.verdict("billing")) == (Verdict.LEAKING, Verdict.BLOCKED)
    assert f"behind {holder.id.pid}," in watch.reason("billing")


def test_a_leak_that_the_server_kills_is_still_found(shop: Database, watch: Watch) -> None:
    """Where idle_in_transaction_session_timeout ends each lost session before its hold limit, what comes is told."""
    timeout = f"{800 * HOLD_LIMIT:.0f}ms"
    engine = async_engine(shop.dsn(), size=200, application_name=NAME, idle_in_transaction_session_timeout=timeout)
    with serving(on_engine(engine, mistakes.session_never_closed)) as address:
        watch.live(
            visitor(address, "/mistake", pause=0.04, times=200),
            *crowd(2, address, "/orders"),
            until=lambda watch: watch.warned(NAME, LeakKind.TRANSACTION_HELD, SITE),
        )
    assert watch.warnings() == {NAME}
    assert watch.happened(LeakOpened) == 1


def test_a_restart_of_the_application_closes_the_finding(shop: Database, watch: Watch) -> None:
    """Opened once, closed once, when what was lost is gone and stays gone; then all is well."""

    def application() -> FastAPI:
        return on_engine(async_engine(shop.dsn(), application_name=NAME), mistakes.session_never_closed)

    with serving(application()) as address:
        watch.live(
            visitor(address, "/mistake", pause=0.15, times=4),
            *crowd(2, address, "/orders"),
            until=lambda watch: watch.warned(NAME, LeakKind.TRANSACTION_HELD, SITE),
        )
    with serving(application()) as address:
        watch.live(*crowd(2, address, "/orders"), until=lambda watch: watch.happened(LeakClosed))
    assert (watch.happened(LeakOpened), watch.happened(LeakClosed), watch.state.findings) == (1, 1, ())
    assert watch.verdict(NAME) is Verdict.OK
