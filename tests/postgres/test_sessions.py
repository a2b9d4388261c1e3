import contextlib

import psycopg
import pytest

from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.core.statements import StatementKind
from pgwatch_sessions.demo.postgres import Postgres
from tests.support.polling import poll, seen, session_of
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.situations import (
    aborted_transaction,
    active,
    idle,
    idle_in_transaction,
    parallel_query,
    role,
    waiting_for_lock,
)
from tests.support.waiting import until


def client_backends(dsn: str) -> set[int]:
    """Return the pids that pg_stat_activity calls client backends, less the one that asks."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return {pid for (pid,) in rows}


def _server_version(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return connection.info.server_version


def test_every_client_backend_is_seen_once_and_nothing_else(any_database: Database) -> None:
    """Parallel workers, aborted transactions, lock waiters and background processes included."""
    dsn = any_database.dsn()
    with contextlib.ExitStack() as stack:
        stack.enter_context(parallel_query(dsn))
        stack.enter_context(aborted_transaction(dsn))
        stack.enter_context(waiting_for_lock(dsn))
        stack.enter_context(idle_in_transaction(dsn))
        stack.enter_context(idle(dsn, 3))
        snapshot = seen(poll(dsn))
        assert {session.id.pid for session in snapshot.sessions} == client_backends(dsn)


def test_each_state_is_named_with_its_times(any_database: Database) -> None:
    """An aborted transaction has no xact_start; no age is negative."""
    dsn = any_database.dsn(application_name="orders")
    with (
        idle(dsn) as (unused,),
        idle_in_transaction(dsn, "SELECT %s::int", 42) as held,
        aborted_transaction(dsn) as aborted,
        active(dsn) as busy,
    ):
        snapshot = seen(poll(any_database.dsn()))
        sessions = {pid: session_of(pid, snapshot) for pid in (unused, held, aborted, busy)}
    assert {pid: session.state for pid, session in sessions.items()} == {
        unused: SessionState.IDLE,
        held: SessionState.IDLE_IN_TRANSACTION,
        aborted: SessionState.ABORTED,
        busy: SessionState.ACTIVE,
    }
    assert sessions[aborted].xact_start is None
    assert sessions[held].xact_start is not None
    assert sessions[held].backend_xmin_age is not None  # the extended protocol keeps the portal's snapshot
    assert sessions[held].wait_event == "ClientRead"
    assert sessions[unused].statement.kind is StatementKind.NEVER_USED
    for session in sessions.values():
        assert session.client == (any_database.name, "postgres", "orders")
        assert session.client_addr == "127.0.0.1"
        assert session.state_change is not None
        assert session.id.backend_start is not None
        assert session.id.backend_start <= session.state_change <= snapshot.taken_at


@pytest.mark.promise("Literals of statements stay secret.")
def test_literals_do_not_pass_the_edge(any_database: Database) -> None:
    """What downstream can hold is redacted already."""
    with idle_in_transaction(any_database.dsn(), "SELECT 'a secret', 4711") as pid:
        snapshot = seen(poll(any_database.dsn()))
    assert session_of(pid, snapshot).statement.text == "SELECT ?"
    assert "secret" not in repr(snapshot)


UNQUOTED = [
    "SET my.api_key TO sk_live_canary",
    'SET my.api_key = "sk_live_canary"',
    'ALTER ROLE postgres PASSWORD "canary"',
    "ALTER ROLE postgres PASSWORD `canary`",
    "ALTER ROLE postgres PASSWORD canary",
    "SELECT * FROM pg_class WHERE relname = \u2018canary\u2019",
    "SELECT * FROM pg_class WHERE relname = \u201ccanary\u201d",
    "SELECT * FROM pg_class WHERE relname = jane.doe@canary.example.com",
    "SELECT * FROM pg_class WHERE relname = eyJhbGciOiJIUzI1NiJ9.eyJjanaryIjoxfQ.canary",
    "canary",
    "password: canary",
    "SELECT 1 /*route='/orders/4711?token=canary',job='mail to jane@canary.example.com'*/",
]


@pytest.mark.parametrize("size", ["100", "4096"])
def test_values_that_are_no_literals_do_not_pass_the_edge(own_postgres: OwnPostgresFactory, size: str) -> None:
    """Whether the statement runs or fails, and where the server cuts it."""
    server = own_postgres(settings={"track_activity_query_size": size})
    seen_texts = []
    for statement in UNQUOTED:
        for padding in ("", "/* a comment as long as many frameworks write them before what they send */ "):
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                with contextlib.suppress(psycopg.Error):
                    connection.execute((padding + statement).encode())
                snapshot = seen(poll(server.dsn()))
                seen_texts.append(session_of(connection.info.backend_pid, snapshot).statement.text)
                assert "canary" not in repr(snapshot), padding + statement
    assert "SET my.api_key TO ?" in seen_texts
    assert "(no SQL)" in seen_texts


def test_a_waiter_says_whom_it_waits_for(any_database: Database) -> None:
    """Only those that wait are asked."""
    with waiting_for_lock(any_database.dsn()) as (holder, waiter):
        snapshot = seen(poll(any_database.dsn()))
    assert session_of(waiter, snapshot).blocked_by == (holder,)
    assert session_of(waiter, snapshot).wait_event_type == "Lock"
    assert session_of(holder, snapshot).blocked_by == ()


def test_xid_and_xmin_ages_are_read_and_not_inferred(any_database: Database) -> None:
    """A session that wrote holds an xid; over the simple protocol a read pins nothing."""
    dsn = any_database.dsn()
    with (
        idle_in_transaction(dsn, "CREATE TABLE t (id int)") as writer,
        idle_in_transaction(dsn, "SELECT 1") as reader,
    ):
        snapshot = seen(poll(dsn))
    assert session_of(writer, snapshot).backend_xid_age is not None
    assert session_of(reader, snapshot).backend_xid_age is None
    assert session_of(reader, snapshot).backend_xmin_age is None


def test_without_privilege_sessions_are_hidden_and_not_absent(any_database: Database) -> None:
    """Slots can be counted and clients named; a state cannot be seen, so there is none."""
    with (
        role(any_database.dsn(), "nosy") as nosy,
        idle(any_database.dsn(application_name="orders"), 2) as others,
        idle(any_database.dsn(user=nosy)) as (own,),
    ):
        snapshot = seen(poll(any_database.dsn(user=nosy)))
    for pid in others:
        session = session_of(pid, snapshot)
        assert session.state is None
        assert session.state_change is None
        assert session.statement.kind is StatementKind.UNKNOWN
        assert session.client == (any_database.name, "postgres", "orders")
    assert session_of(own, snapshot).state is SessionState.IDLE
    assert {session.client.database for session in snapshot.sessions} == {any_database.name}


def test_pg_monitor_is_all_that_is_needed(any_database: Database) -> None:
    """Every state is visible to a member."""
    with role(any_database.dsn(), "watcher", member_of=["pg_monitor"]) as watcher, idle(any_database.dsn(), 2):
        snapshot = seen(poll(any_database.dsn(user=watcher)))
    assert all(session.state is not None for session in snapshot.sessions)


def test_a_statement_in_another_encoding_is_seen(any_postgres: Postgres) -> None:
    """pg_stat_activity hands out the bytes of another database as they are, UTF-8 or not."""
    with psycopg.connect(any_postgres.dsn(), autocommit=True) as superuser:
        superuser.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        dsn = any_postgres.dsn(database="latin", client_encoding="LATIN1")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("BEGIN")
            connection.execute('SELECT 1 AS "\xe9t\xe9"')
            snapshot = seen(poll(any_postgres.dsn()))
            session = session_of(connection.info.backend_pid, snapshot)
    finally:
        with psycopg.connect(any_postgres.dsn(), autocommit=True) as superuser:
            superuser.execute("DROP DATABASE latin WITH (FORCE)")
    assert session.statement.text == 'SELECT ? AS "�t�"'


def test_limits_of_server_roles_and_databases_are_read(any_database: Database) -> None:
    """An unlimited one is absent; a superuser's limit has no effect."""
    with role(any_database.dsn(), "limited", connection_limit=7):
        with psycopg.connect(any_database.dsn(), autocommit=True) as superuser:
            superuser.execute(f'ALTER DATABASE "{any_database.name}" CONNECTION LIMIT 9')
            superuser.execute("ALTER ROLE postgres CONNECTION LIMIT 11")
        try:
            server = seen(poll(any_database.dsn())).server
        finally:
            with psycopg.connect(any_database.dsn(), autocommit=True) as superuser:
                superuser.execute("ALTER ROLE postgres CONNECTION LIMIT -1")
    assert server.version_num == _server_version(any_database.dsn())
    assert server.in_recovery is False
    assert server.max_connections == 100
    assert server.ordinary_slots == 97
    assert dict(server.role_limits) == {"limited": 7}
    assert dict(server.database_limits) == {any_database.name: 9}


def test_reserved_connections_are_no_ordinary_slots(own_postgres: OwnPostgresFactory) -> None:
    """PostgreSQL 16 and newer can keep slots for pg_use_reserved_connections."""
    server = own_postgres(settings={"max_connections": "20", "reserved_connections": "4"})
    assert seen(poll(server.dsn())).server.ordinary_slots == 13


def test_the_counters_of_each_database_are_read(any_database: Database) -> None:
    """Sessions that come and go between two polls are counted all the same."""

    def established() -> int:
        snapshot = seen(poll(any_database.server.dsn()))
        return next(c.established for c in snapshot.databases if c.database == any_database.name)

    before = established()
    for _ in range(3):
        psycopg.connect(any_database.dsn()).close()

    until(lambda: established() >= before + 3)
