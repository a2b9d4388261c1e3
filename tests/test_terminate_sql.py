"""`pgwatch-sessions terminate-sql` as a process on real servers: what it prints, and what psql does with it."""

import contextlib
import shutil
import subprocess

import psycopg
import pytest

from tests.support.programs import finished
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.situations import idle, idle_in_transaction, role
from tests.support.waiting import until

LEAKED = "SELECT 'swordfish' /*route='/orders/{id}'*/"
LIMIT = ("--hold-limit", "1s")


def of_database(database: Database, *arguments: str) -> tuple[str, ...]:
    """Return the arguments of a command that ignores other tests' sessions on the shared server."""
    return ("terminate-sql", "--dsn", database.dsn(), "--database", database.name, *LIMIT, *arguments)


def pids(database: Database) -> set[int]:
    """Return the sessions of this database."""
    with psycopg.connect(database.server.dsn()) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        return {pid for (pid,) in connection.execute(query, [database.name])}


@pytest.mark.skipif(shutil.which("psql") is None, reason="needs psql")
def test_its_output_in_psql_terminates_the_held_sessions_of_the_application_only(database: Database) -> None:
    """A shell pipe is enough. The client's name cannot end its comment."""
    name = "orders\n\\q;DROP TABLE"
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(psycopg.OperationalError))  # raised by terminated clients
        leaked = {
            stack.enter_context(idle_in_transaction(database.dsn(application_name=name), LEAKED)) for _ in range(3)
        }
        (rested,) = stack.enter_context(idle(database.dsn(application_name=name)))
        other = stack.enter_context(idle_in_transaction(database.dsn(application_name="carts")))
        printed = finished(*of_database(database, "--application", "orders*", "--site", "/orders/*"))
        assert (printed.returncode, printed.stderr) == (0, "")
        command = ["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", "--tuples-only", "--no-align"]
        ended = subprocess.run(
            [*command, database.dsn()], input=printed.stdout, capture_output=True, text=True, timeout=30, check=True
        )
        assert {int(row.removesuffix("|t")) for row in ended.stdout.split()} == leaked
        until(lambda: pids(database) == {rested, other})
    assert "3 sessions idle in transaction at /orders/{id}" in printed.stdout
    assert "swordfish" not in printed.stdout


def test_without_a_held_session_it_prints_a_comment(database: Database) -> None:
    """Nothing to terminate is a success, and the output is SQL all the same."""
    with idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED):
        ended = finished(*of_database(database, "--site", "/carts/*"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        "-- No session that could be terminated was seen.\n",
        "",
    )


def test_a_pattern_that_matches_no_client_is_an_error(database: Database) -> None:
    """A typing error must not look like a healthy application. The clients that exist are named."""
    with idle(database.dsn(application_name="orders-api")):
        ended = finished(*of_database(database, "--application", "nope*"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert " matches no client; there are orders-api in " in ended.stderr


def test_what_cannot_be_seen_is_exit_3(own_postgres: OwnPostgresFactory) -> None:
    """A server that is down, and a role that may not see the sessions' states; standard output stays valid SQL."""
    down = finished("terminate-sql", "--dsn", "postgresql://postgres@127.0.0.1:1/postgres", "--timeout", "1s")
    assert (down.returncode, down.stdout) == (3, "-- No session that could be terminated was seen.\n")
    assert "cannot poll" in down.stderr
    server = own_postgres()
    with role(server.dsn(), "plain"), idle_in_transaction(server.dsn(application_name="orders-api")):
        hidden = finished("terminate-sql", "--dsn", server.dsn(user="plain"), *LIMIT)
    assert hidden.returncode == 3
    assert "1 of 1 session is hidden from the monitoring role" in hidden.stderr
