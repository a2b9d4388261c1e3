"""The situations that other tests build on are on the server what they say they are, on every major."""

import psycopg
import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.support import situations
from tests.support.servers import Database
from tests.support.waiting import until


def seen(database: Database, *pids: int) -> list[tuple[object, ...]]:
    """Return state, wait and whether a transaction is timed, of these sessions in this order."""
    with psycopg.connect(database.server.dsn()) as observer:
        rows = observer.execute(
            "SELECT state, wait_event, xact_start IS NOT NULL, backend_xmin IS NOT NULL"
            " FROM pg_stat_activity WHERE pid = ANY(%s) ORDER BY array_position(%s, pid)",
            [list(pids), list(pids)],
        )
        return rows.fetchall()


def test_held_sessions(any_database: Database) -> None:
    """Idle, idle in transaction (with and without a pinned xmin) and aborted sessions look like that."""
    dsn = any_database.dsn()
    with (
        situations.idle(dsn, 2) as (first, second),
        situations.idle_in_transaction(dsn) as simple,
        situations.idle_in_transaction(dsn, "SELECT %s::int", 1) as extended,
        situations.aborted_transaction(dsn) as aborted,
    ):
        assert seen(any_database, first, second, simple, extended, aborted) == [
            ("idle", "ClientRead", False, False),
            ("idle", "ClientRead", False, False),
            ("idle in transaction", "ClientRead", True, False),
            ("idle in transaction", "ClientRead", True, True),
            ("idle in transaction (aborted)", "ClientRead", False, False),
        ]
    until(lambda: not seen(any_database, first, second, simple, extended, aborted))


def test_working_sessions(any_database: Database) -> None:
    """Active and blocked sessions look like that, and a parallel query has its workers."""
    dsn = any_database.dsn()
    with situations.active(dsn) as active, situations.waiting_for_lock(dsn) as (holder, waiter):
        assert seen(any_database, active, holder, waiter) == [
            ("active", "PgSleep", True, True),
            ("idle in transaction", "ClientRead", True, False),
            ("active", "advisory", True, True),
        ]
    with situations.parallel_query(dsn, workers=2) as leader, psycopg.connect(dsn) as observer:
        workers = observer.execute(
            "SELECT backend_type FROM pg_stat_activity WHERE leader_pid = %s AND pid <> leader_pid", [leader]
        )
        assert workers.fetchall() == [("parallel worker",)] * 2


def test_role_without_privilege(any_postgres: Postgres) -> None:
    """A plain role sees of others that they are there; its connection limit and password are real."""
    with situations.role(any_postgres.dsn(), "plain", connection_limit=1) as name:
        dsn = any_postgres.dsn(user=name)
        with situations.active(any_postgres.dsn()) as other, psycopg.connect(dsn) as plain:
            row = plain.execute("SELECT state, query FROM pg_stat_activity WHERE pid = %s", [other]).fetchone()
            assert row == (None, "<insufficient privilege>")
            with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
                psycopg.connect(dsn)
    with situations.role(any_postgres.dsn(), "monitor", member_of=["pg_monitor"]) as name:
        dsn = any_postgres.dsn(user=name)
        with situations.active(any_postgres.dsn()) as other, psycopg.connect(dsn) as monitor:
            row = monitor.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [other]).fetchone()
            assert row == ("active",)
