"""`pgwatch-sessions check` as a process, on real servers: what it reports, and the exit codes that a gate relies on."""

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

import pgwatch_sessions
from pgwatch_sessions.demo.postgres import Postgres
from tests.conftest import OwnPostgresFactory
from tests.support.daemons import own_sessions
from tests.support.programs import environment, finished
from tests.support.servers import Database
from tests.support.situations import aborted_transaction, idle, idle_in_transaction, role
from tests.support.terminals import at_terminal
from tests.support.waiting import until

EXAMPLE = Path(pgwatch_sessions.__file__).parents[1] / "deploy" / "ci" / "connection-leak-test.yml"
#: As short as a hold limit can be.
SHORT = ("--hold-limit", "1s", "--interval", "600ms")
SECRET = "s3cret@example.org"
LEAKED = f"SELECT '{SECRET}' AS email /*route='/orders/{{id}}'*/"


def narrowed(database: Database, *arguments: str) -> tuple[str, ...]:
    """Return a check that other tests' sessions on the shared server do not meddle with."""
    return ("check", "--dsn", database.dsn(), "--database", database.name, *arguments)


def document(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a check for its JSON; return the exit code and what it said of the one server."""
    ended = finished(*arguments, "--format", "json")
    found = json.loads(ended.stdout)
    assert found["exit_code"] == ended.returncode
    (server,) = found["servers"]
    return ended.returncode, server


def test_a_leaked_transaction_fails_the_gate_and_is_named(database: Database) -> None:
    """Three polls over 4 s, as they are by default: exit 1, who, where, which session, and how to end just that one."""
    with idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED) as pid:
        ended = finished(*narrowed(database, "--hold-limit", "2s"))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert (
        f"NOTICE  orders-api ({database.name}, postgres): 1 session idle in transaction at /orders/{{id}}"
        in ended.stdout
    )
    assert f"  pid {pid} from 127.0.0.1, idle in transaction since " in ended.stdout
    assert f"WHERE pid = {pid} AND backend_start = '" in ended.stdout
    assert ended.stdout.endswith("\n1 finding of notice or above.\n")
    assert SECRET not in ended.stdout


def test_a_clean_server_passes(database: Database) -> None:
    """Idle sessions that were handed back are no finding; our own session is gone afterwards."""
    with idle(database.dsn(application_name="orders-api"), 3):
        ended = finished(*narrowed(database, *SHORT))
    assert (ended.returncode, ended.stderr) == (0, "")
    row = next(line for line in ended.stdout.splitlines() if line.startswith("orders-api"))
    assert re.fullmatch(rf"orders-api \({database.name}, postgres\) +3  3, \d s  ok", row)
    assert ended.stdout.endswith("\nNothing of notice or above.\n")
    until(lambda: own_sessions(database.dsn()) == 0)


def test_age_counts_from_before_we_polled(database: Database) -> None:
    """A session that is over the limit already is found by a single poll."""
    with aborted_transaction(database.dsn(application_name="jobs")) as pid:
        _until_older(database, pid, seconds=1.1)
        code, server = document(*narrowed(database, "--polls", "1", "--hold-limit", "1s"))
    assert code == 1
    (finding,) = server["findings"]
    assert (finding["kind"], finding["application"], finding["sessions"]) == ("transaction_held", "jobs", [pid])


def _until_older(database: Database, pid: int, *, seconds: float) -> None:
    query = "SELECT clock_timestamp() - state_change > make_interval(secs => %s) FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        until(lambda: connection.execute(query, [seconds, pid]).fetchone() == (True,))


def test_what_is_too_young_is_said_and_waited_out_if_asked(database: Database) -> None:
    """A hold within its limit passes, with a word about it; `--for` polls until it is over."""
    with idle_in_transaction(database.dsn(application_name="orders-api")):
        ended = finished(*narrowed(database, "--polls", "2", "--interval", "100ms"))
        assert ended.returncode == 0
        young = f"orders-api ({database.name}, postgres) has 1 session idle in transaction, up to "
        assert f"Too young to judge: {young}" in ended.stdout
        assert "the hold limit is 1m. --for 1m waits it out." in ended.stdout
        code, server = document(*narrowed(database, "--for", "2400ms", "--interval", "400ms", "--hold-limit", "2s"))
    assert (code, server["polls"], server["too_young_to_judge"]) == (1, 7, [])


def test_the_document_says_all_that_the_report_says(database: Database) -> None:
    """Clients with states and ages, findings with evidence and advice; no literal."""
    with idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED) as pid, idle(database.dsn()):
        code, server = document(*narrowed(database, *SHORT))
    assert (code, server["failure"], server["hidden_sessions"], server["polls"]) == (1, None, 0, 3)
    assert {client["application"]: client["states"] for client in server["clients"]} == {
        "orders-api": {"idle in transaction": 1},
        "(none)": {"idle": 1},
    }
    (finding,) = server["findings"]
    expected = {
        "kind": "transaction_held",
        "severity": "notice",
        "database": database.name,
        "user": "postgres",
        "application": "orders-api",
        "origin": "127.0.0.1",
        "site": "/orders/{id}",
        "sessions": [pid],
    }
    assert finding.items() >= expected.items()
    assert finding["age_seconds"] > 1
    assert finding["cause"]
    assert finding["steps"]
    (terminate,) = finding["terminate"]
    assert f"pid = {pid} AND backend_start = '" in terminate
    assert SECRET not in json.dumps(server)


def test_it_can_be_narrowed_to_those_who_matter(database: Database) -> None:
    """Findings of others neither fail the gate nor stand in the report; patterns are the shell's."""
    with idle_in_transaction(database.dsn(application_name="billing-1")) as pid:
        _until_older(database, pid, seconds=1.1)
        once = ("--polls", "1", "--hold-limit", "1s")
        assert finished(*narrowed(database, *once, "--application", "billing-*")).returncode == 1
        others = finished(*narrowed(database, *once, "--application", "orders-*"))
        elsewhere = finished("check", "--dsn", database.dsn(), *once, "--database", "no-such-*")
    assert (others.returncode, elsewhere.returncode) == (0, 0)
    assert "billing" not in others.stdout + elsewhere.stdout
    assert "No client has a session." in others.stdout


def test_a_notice_says_how_to_know_more(database: Database) -> None:
    """Where the polls took less than the hold limit a longer check is proposed, and not where they took longer."""
    with idle_in_transaction(database.dsn(application_name="orders-api")) as pid:
        _until_older(database, pid, seconds=1.1)
        short = finished(*narrowed(database, "--polls", "1", "--hold-limit", "1s"))
        long = finished(*narrowed(database, "--for", "1200ms", "--interval", "400ms", "--hold-limit", "1s"))
    assert "--for 2s tells more." in short.stdout
    assert (long.returncode, "tells more" in long.stdout) == (1, False)


def test_a_limit_that_is_nearer_than_the_servers_is_shown(own_postgres: OwnPostgresFactory) -> None:
    """A role's own limit may be reached long before the server's; that of a role without sessions says nothing."""
    server = own_postgres()
    with role(server.dsn(), "app", connection_limit=4), role(server.dsn(), "other", connection_limit=1):
        with idle(server.dsn(user="app", application_name="orders-api"), 3):
            ended = finished("check", "--polls", "1", "--dsn", server.dsn())
        alone = finished("check", "--polls", "1", "--dsn", server.dsn())
    assert re.match(r"\S+: 1 poll, 4 of 97 slots used, 3 of 4 by role app, diagnosis: ok\n", ended.stdout)
    assert "by role" not in alone.stdout


def test_what_fails_can_be_chosen(database: Database) -> None:
    """A notice passes where only a warning fails, and is in the report all the same."""
    with idle_in_transaction(database.dsn(application_name="orders-api")) as pid:
        _until_older(database, pid, seconds=1.1)
        ended = finished(*narrowed(database, "--polls", "1", "--hold-limit", "1s", "--fail-on", "warning"))
    assert ended.returncode == 0
    assert "NOTICE  orders-api" in ended.stdout
    assert ended.stdout.endswith("\nNothing of warning or above.\n")


def test_a_wrong_password_is_no_sight(own_postgres: OwnPostgresFactory) -> None:
    """Exit 3 at once, however long we were to poll; the password is nowhere."""
    server = own_postgres(hba=["host all locked 127.0.0.1/32 scram-sha-256"])
    with role(server.dsn(), "locked", password="right"):
        dsn = server.dsn(user="locked", password="wr0ng-secret")
        ended = finished("check", "--for", "1h", env=environment(DSN=dsn))
    assert (ended.returncode, ended.stderr) == (3, "")
    assert "It cannot be seen: authentication: " in ended.stdout
    assert "\nSet user and password with --dsn, or with PGUSER and PGPASSWORD, " in ended.stdout
    assert "wr0ng-secret" not in ended.stdout


def test_hidden_states_are_no_sight(own_postgres: OwnPostgresFactory) -> None:
    """A role that may not see others' states cannot vouch for them: exit 3, with what to grant."""
    server = own_postgres()
    with role(server.dsn(), "plain"), idle_in_transaction(server.dsn(application_name="orders-api")):
        ended = finished("check", "--polls", "1", "--dsn", server.dsn(user="plain"))
        narrow = finished("check", "--polls", "1", "--dsn", server.dsn(user="plain"), "--application", "others")
    assert ended.returncode == 3
    assert '1 session hidden from our role: GRANT pg_monitor TO "plain";' in ended.stdout
    assert narrow.returncode == 0


def test_of_several_servers_all_are_checked_and_the_highest_code_counts(database: Database, tmp_path: Path) -> None:
    """One that is down does not keep the other's finding from the report."""
    file = tmp_path / "two.yaml"
    file.write_text(f"""\
servers:
  - {{name: down, dsn: "postgresql://postgres@127.0.0.1:1/postgres"}}
  - {{name: shop, dsn: "{database.dsn()}"}}
""")
    with idle_in_transaction(database.dsn(application_name="orders-api")) as pid:
        _until_older(database, pid, seconds=1.1)
        arguments = ("check", "--config", str(file), "--polls", "1", "--hold-limit", "1s", "--database", database.name)
        ended = finished(*arguments)
        found = json.loads(finished(*arguments, "--format", "json").stdout)
    assert ended.returncode == 3
    assert "It cannot be seen: network: " in ended.stdout
    assert "NOTICE  orders-api" in ended.stdout
    assert {server["server"]: server["exit_code"] for server in found["servers"]} == {"down": 3, "shop": 1}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--polls", "0"], "argument --polls: must be at least 1"),
        (["--for", "0"], "argument --for: must be longer than 0s"),
        (["--for", "soon"], "argument --for: must be a duration"),
        (["--polls", "2", "--for", "3s"], "not allowed with argument"),
        (["--fail-on", "nothing"], "argument --fail-on: invalid choice"),
        (["--hold-limit", "0"], "--hold-limit: must be from 1s to 168h"),
        (["extra"], "unrecognized arguments: extra"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str) -> None:
    """Exit 2, and what is wrong; no server is asked."""
    ended = finished("check", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in ended.stderr


def test_the_daemons_interval_is_not_the_checks(database: Database) -> None:
    """A daemon that polls once an hour, in the same environment, does not make a check last for hours."""
    env = environment(INTERVAL="1h", DSN=database.dsn())
    assert (
        finished("check", "--polls", "2", "--interval", "100ms", "--database", database.name, env=env).returncode == 0
    )


def test_a_terminal_gets_colours_progress_and_folded_text(database: Database) -> None:
    """What is piped has none of it, and NO_COLOR is heeded."""
    with idle_in_transaction(database.dsn(application_name="orders-api")) as pid:
        _until_older(database, pid, seconds=1.1)
        command = narrowed(database, "--polls", "2", "--interval", "150ms", "--hold-limit", "1s")
        shown = at_terminal(*command, columns=70)
        plain = at_terminal(*command, env={**environment(), "NO_COLOR": "1"})
        piped = finished(*command)
    assert (shown.code, plain.code, piped.returncode) == (1, 1, 1)
    assert "\x1b[1mNOTICE\x1b[0m  orders-api" in shown.terminal
    assert "poll 1 of 2" in shown.terminal
    assert all(
        len(line) < 70 for line in shown.terminal.splitlines() if line.startswith("    ") and "SELECT" not in line
    )
    assert "\x1b[1m" not in plain.terminal
    assert "\x1b" not in piped.stdout + piped.stderr
    assert any(len(line) > 120 for line in piped.stdout.splitlines())


def test_help_says_what_a_gate_needs() -> None:
    """Examples and exit codes stand in the help."""
    text = finished("check", "--help").stdout
    assert "examples:\n  pgwatch-sessions check --dsn " in text
    assert "exit codes:\n  0  nothing found\n  1  a finding of at least --fail-on\n" in text


def test_without_patterns_every_client_counts(own_postgres: OwnPostgresFactory) -> None:
    """Sessions of every database are judged."""
    server: Postgres = own_postgres().server
    with idle_in_transaction(server.dsn(database="template1")), idle_in_transaction(server.dsn()):
        code, found = document("check", "--dsn", server.dsn(), *SHORT)
    assert code == 1
    assert sorted(finding["database"] for finding in found["findings"]) == ["postgres", "template1"]


def test_the_example_for_ci_uses_what_there_is() -> None:
    """It is YAML, and each of our commands in it has the options that it is given."""
    steps = yaml.safe_load(EXAMPLE.read_text())["jobs"]["connection-leaks"]["steps"]
    commands = re.findall(
        r"pgwatch-sessions ((?:check|record|replay) .*)", "\n".join(step.get("run", "") for step in steps)
    )
    assert [command.split()[0] for command in commands] == ["record", "check", "replay"]
    for command in commands:
        name, *words = command.split()
        text = finished(name, "--help").stdout
        assert [word for word in words if word.startswith("--") and f"  {word} " not in text] == []
