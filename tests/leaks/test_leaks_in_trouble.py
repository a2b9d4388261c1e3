"""Real leaks that block other sessions, that the server terminates, or that end with a restart."""

from fastapi import FastAPI

from pgwatch_sessions.core.events import LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import LeakKind, Severity, Verdict
from tests.support.leaking import mistakes
from tests.support.leaking.applications import NAME, app_on_async_engine, async_engine
from tests.support.leaking.monitoring import HOLD_LIMIT, Monitor
from tests.support.leaking.serving import serve, visit, visitors
from tests.support.leaking.workloads import sell_stock
from tests.support.servers import Database

SITE = "SELECT invoices"


def test_one_forgotten_row_lock_blocks_others(shop: Database, monitor: Monitor) -> None:
    """The single holder is critical, because a whole client waits for it; the waiting client is `blocked` by it."""
    application = app_on_async_engine(async_engine(shop.dsn(), application_name=NAME), mistakes.row_locked)
    with serve(application) as address:
        finding = monitor.poll_until(
            visit(address, "/mistake", times=1),
            *(sell_stock(shop.dsn(), "billing", piece=1) for _ in range(3)),
            until=lambda monitor: monitor.open_warning(NAME, LeakKind.TRANSACTION_HELD, "UPDATE stock"),
        )
    (holder,) = finding.sessions
    assert (finding.severity, finding.harm.slots, finding.harm.blocked) == (Severity.CRITICAL, 1, 3)
    assert monitor.warned_applications() == {NAME}
    assert (monitor.verdict(NAME), monitor.verdict("billing")) == (Verdict.LEAKING, Verdict.BLOCKED)
    assert f" at UPDATE stock (pid {holder.id.pid}), " in monitor.reason("billing")


def test_a_leak_that_a_time_out_terminates_is_still_found(shop: Database, monitor: Monitor) -> None:
    """idle_in_transaction_session_timeout ends each leaked session before the hold limit, but new ones keep coming."""
    timeout = f"{800 * HOLD_LIMIT:.0f}ms"
    engine = async_engine(shop.dsn(), size=200, application_name=NAME, idle_in_transaction_session_timeout=timeout)
    with serve(app_on_async_engine(engine, mistakes.session_never_closed)) as address:
        monitor.poll_until(
            visit(address, "/mistake", pause=0.04, times=200),
            *visitors(2, address, "/orders"),
            until=lambda monitor: monitor.open_warning(NAME, LeakKind.TRANSACTION_HELD, SITE),
        )
    assert monitor.warned_applications() == {NAME}
    assert monitor.count_events(LeakOpened) == 1


def test_a_restart_of_the_application_closes_the_finding(shop: Database, monitor: Monitor) -> None:
    """The finding opens once, and closes once when the leaked sessions are gone and do not come back."""

    def application() -> FastAPI:
        return app_on_async_engine(async_engine(shop.dsn(), application_name=NAME), mistakes.session_never_closed)

    with serve(application()) as address:
        monitor.poll_until(
            visit(address, "/mistake", pause=0.15, times=4),
            *visitors(2, address, "/orders"),
            until=lambda monitor: monitor.open_warning(NAME, LeakKind.TRANSACTION_HELD, SITE),
        )
    with serve(application()) as address:
        monitor.poll_until(*visitors(2, address, "/orders"), until=lambda monitor: monitor.count_events(LeakClosed))
    assert (monitor.count_events(LeakOpened), monitor.count_events(LeakClosed), monitor.state.findings) == (1, 1, ())
    assert monitor.verdict(NAME) is Verdict.OK
