"""The role that deploy/sql/create_monitor_role.sql makes: enough to see everything, and for nothing else."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import pgwatch_sessions
from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import daemon
from tests.support.polling import poll, seen, session_of
from tests.support.servers import Database, OwnPostgres, OwnPostgresFactory, installed
from tests.support.situations import aborted_transaction, active, idle, idle_in_transaction, role, waiting_for_lock

SCRIPT = Path(pgwatch_sessions.__file__).parents[1] / "deploy" / "sql" / "create_monitor_role.sql"
ROLE = "pgwatch_sessions"
SCRAM = f"host all {ROLE} 127.0.0.1/32 scram-sha-256"


def run_script(dsn: str) -> None:
    """Run the script in one transaction, as `psql -1` does."""
    with psycopg.connect(dsn) as connection:
        connection.execute(SCRIPT.read_bytes())


@contextlib.contextmanager
def monitoring_role(server: Postgres, *, maker: str = "postgres") -> Iterator[str]:
    """Yield the DSN of the role, made by the script, which is run twice."""
    for _ in range(2):
        run_script(server.dsn(user=maker))
    try:
        yield server.dsn(user=ROLE)
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as superuser:
            superuser.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'".encode()
            )
            superuser.execute(f"DROP ROLE {ROLE}".encode())


def test_nothing_is_hidden_from_the_role(any_postgres: Postgres, any_database: Database) -> None:
    """It sees the state of every session, superusers' included, and who blocks whom, without owning anything."""
    dsn = any_database.dsn()
    with (
        monitoring_role(any_postgres) as monitor,
        idle_in_transaction(dsn) as held,
        aborted_transaction(dsn) as aborted,
        active(dsn) as busy,
        waiting_for_lock(dsn) as (holder, waiter),
    ):
        snapshot = seen(poll(monitor))
        states = {pid: session_of(pid, snapshot).state for pid in (held, aborted, busy, holder, waiter)}
    assert states == {
        held: SessionState.IDLE_IN_TRANSACTION,
        aborted: SessionState.ABORTED,
        busy: SessionState.ACTIVE,
        holder: SessionState.IDLE_IN_TRANSACTION,
        waiter: SessionState.ACTIVE,
    }
    assert session_of(waiter, snapshot).blocked_by == (holder,)
    assert all(session.state is not None for session in snapshot.sessions)
    assert snapshot.own_user == ROLE
    assert any_database.name in {counters.database for counters in snapshot.databases}


def test_the_role_takes_three_connections_at_most(any_postgres: Postgres) -> None:
    """The daemon's own, and two to spare; the limit is one that the daemon shows."""
    with monitoring_role(any_postgres) as monitor, idle(monitor, 2), daemon(dsn=monitor) as watching:
        scrape = watching.scrape_when_up()
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            psycopg.connect(monitor)
        assert scrape.value("capacity_slots", scope="role", name=ROLE) == 3
        assert scrape.value("used_slots", scope="role", name=ROLE) == 3
        assert scrape.value("hidden_sessions") == 0


@pytest.mark.promise("It is read-only.")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_terminate_backend({victim})",
        "SELECT pg_cancel_backend({victim})",
        "TABLE orders",
        "CREATE TEMP TABLE t ()",
    ],
)
def test_the_role_can_do_nothing_but_poll(any_postgres: Postgres, any_database: Database, statement: str) -> None:
    """It may neither end nor cancel others' sessions, nor read their tables, nor write."""
    with (
        role(any_postgres.dsn(), "app") as app,
        idle_in_transaction(any_database.dsn(user=app)) as victim,
        psycopg.connect(any_database.dsn(), autocommit=True) as owner,
        monitoring_role(any_postgres),
        psycopg.connect(any_database.dsn(user=ROLE)) as monitor,
    ):
        owner.execute("CREATE TABLE orders (id int)")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
            monitor.execute(statement.format(victim=victim).encode())


def test_the_administrator_of_a_managed_service_can_make_the_role(any_postgres: Postgres) -> None:
    """No superuser is needed; where reserved slots are not the administrator's to grant, the rest is done still."""
    with (
        role(any_postgres.dsn(), "administrator") as administrator,
        idle_in_transaction(any_postgres.dsn()) as held,
        psycopg.connect(any_postgres.dsn(), autocommit=True) as superuser,
    ):
        superuser.execute(f"ALTER ROLE {administrator} CREATEROLE".encode())
        superuser.execute(f"GRANT pg_monitor TO {administrator} WITH ADMIN OPTION".encode())
        with monitoring_role(any_postgres, maker=administrator) as monitor:
            assert session_of(held, seen(poll(monitor))).state is SessionState.IDLE_IN_TRANSACTION


def test_the_lines_for_pg_hba_conf_are_valid(any_postgres: Postgres, own_postgres: OwnPostgresFactory) -> None:
    """PostgreSQL finds no fault with those that the README shows, but that this server has TLS switched off."""
    lines = re.findall(r"^hostssl .*$", SCRIPT.with_name("README.md").read_text(), re.MULTILINE)
    assert len(lines) == 2
    with psycopg.connect(any_postgres.dsn()) as connection:
        if connection.execute("SHOW ssl_library").fetchone() == ("",):
            pytest.skip("this PostgreSQL has no TLS: make test-matrix")
        [[version]] = connection.execute("SHOW server_version_num")
    server = own_postgres(major=int(version) // 10_000, hba=lines)
    rules = "SELECT user_name, auth_method, error FROM pg_hba_file_rules ORDER BY line_number LIMIT 2"
    with psycopg.connect(server.dsn()) as superuser:
        found = superuser.execute(rules).fetchall()
    off = "hostssl record cannot match because SSL is disabled"
    assert found == [([ROLE], "scram-sha-256", off), ([ROLE], "cert", off)]


@contextlib.contextmanager
def with_password(server: OwnPostgres, file: Path) -> Iterator[str]:
    r"""Give the role a password as psql's `\password` does, hashed before it is sent; yield its DSN without it."""
    password = "it's @ 100%"
    with monitoring_role(server.server) as monitor:
        with psycopg.connect(server.dsn()) as superuser:
            hashed = superuser.pgconn.encrypt_password(password.encode(), ROLE.encode(), b"scram-sha-256").decode()
            superuser.execute(f"ALTER ROLE {ROLE} PASSWORD '{hashed}'".encode())
        file.write_text(f"{password}\n")
        yield monitor


@pytest.mark.parametrize("major", installed(), ids="pg{}".format)
def test_the_daemon_sees_and_finds_everything_as_the_role(
    own_postgres: OwnPostgresFactory, tmp_path: Path, major: int
) -> None:
    """With no more than the script gives and a password of its own: every state, nothing hidden, and the leak."""
    server = own_postgres(major=major, hba=[SCRAM])
    secret = tmp_path / "password"
    with role(server.dsn(), "app") as app, with_password(server, secret) as monitor:
        orders = server.dsn(user=app, application_name="orders")
        with idle(orders), aborted_transaction(orders), active(orders), idle_in_transaction(orders, "TABLE pg_class"):
            with pytest.raises(psycopg.OperationalError, match="no password supplied"):
                psycopg.connect(monitor)
            with daemon(f"--password-file={secret}", "--hold-limit=1s", dsn=monitor) as watching:
                scrape = watching.scrape_when(lambda scrape: len(scrape.all("leaked_sessions")) == 2)
                found = watching.get("/api/v1/leaks").json()["leaks"]
        assert (scrape.value("up"), scrape.value("hidden_sessions")) == (1, 0)
        states = ("active", "idle", "idle in transaction", "idle in transaction (aborted)")
        assert scrape.connections() == {("postgres", "app", "orders", state): 1 for state in states}
        sites = {(each["application"], each["user"], each["site"]) for each in found}
        assert sites == {("orders", "app", "TABLE pg_class"), ("orders", "app", "SELECT ? / ?")}


@pytest.mark.parametrize("major", [major for major in installed() if major >= 16], ids="pg{}".format)
def test_with_reserved_slots_it_gets_into_a_full_server(
    own_postgres: OwnPostgresFactory, tmp_path: Path, major: int
) -> None:
    """A daemon that starts when all ordinary slots are gone sees that they are, by whom, and who leaks."""
    slots = {"max_connections": "10", "superuser_reserved_connections": "2", "reserved_connections": "2"}
    server = own_postgres(major=major, settings=slots, hba=[SCRAM])
    secret = tmp_path / "password"
    with role(server.dsn(), "app") as app, with_password(server, secret) as monitor:
        orders = server.dsn(user=app, application_name="orders")
        with idle(orders, 5), idle_in_transaction(orders, "TABLE pg_class"):
            with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
                psycopg.connect(orders)
            with daemon(f"--password-file={secret}", "--hold-limit=1s", dsn=monitor) as watching:
                scrape = watching.scrape_when(
                    lambda scrape: scrape.all("leaked_sessions", site="TABLE pg_class") == [1]
                )
                assert (scrape.value("up"), scrape.value("hidden_sessions")) == (1, 0)
                assert scrape.value("exhausted") == 1
                assert scrape.value("capacity_slots", scope="server") == 6
                client = ("postgres", "app", "orders")
                assert scrape.connections() == {(*client, "idle"): 5, (*client, "idle in transaction"): 1}
