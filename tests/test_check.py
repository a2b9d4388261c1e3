"""`pgwatch-sessions check` as a process on real servers: its report, and the exit codes that a CI gate relies on."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

import pgwatch_sessions
from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import own_sessions
from tests.support.programs import environment, finished
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.situations import aborted_transaction, idle, idle_in_transaction, role
from tests.support.terminals import at_terminal
from tests.support.waiting import until

EXAMPLE = Path(pgwatch_sessions.__file__).parents[1] / "deploy" / "ci" / "connection-leak-test.yml"
#: As short as a hold limit can be.
SHORT = ("--hold-limit", "1s", "--interval", "600ms")
SECRET = "s3cret@example.org"
LEAKED = f"SELECT '{SECRET}' AS email /*route='/orders/{{id}}'*/"


def of_database(database: Database, *arguments: str) -> tuple[str, ...]:
    """Return the arguments of a check that ignores other tests' sessions on the shared server."""
    return ("check", "--dsn", database.dsn(), "--database", database.name, *arguments)


def document(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a check with JSON output; return the exit code and the one server of the document."""
    ended = finished(*arguments, "--format", "json")
    found = json.loads(ended.stdout)
    assert found["exit_code"] == ended.returncode
    (server,) = found["servers"]
    return ended.returncode, server


def test_a_leaked_transaction_fails_the_gate_and_is_named(database: Database) -> None:
    """The default of three polls over 4 s gives exit 1, the client, the site, the session, and SQL to terminate it."""
    with idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED) as pid:
        ended = finished(*of_database(database, "--hold-limit", "2s"))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert (
        f"NOTICE  orders-api ({database.name}, postgres): 1 session idle in transaction at /orders/{{id}}"
        in ended.stdout
    )
    assert f"  pid {pid} from 127.0.0.1, idle in transaction since " in ended.stdout
    assert f"WHERE (pid, backend_start) IN (VALUES\n      ({pid}, '" in ended.stdout
    assert ended.stdout.endswith("\n1 finding of severity notice or worse.\n")
    assert SECRET not in ended.stdout


def test_a_clean_server_passes(database: Database) -> None:
    """Idle sessions that were returned to the pool are no finding. Our own session is closed at the end."""
    with idle(database.dsn(application_name="orders-api"), 3):
        ended = finished(*of_database(database, *SHORT))
    assert (ended.returncode, ended.stderr) == (0, "")
    row = next(line for line in ended.stdout.splitlines() if line.startswith("orders-api"))
    assert re.fullmatch(rf"orders-api \({database.name}, postgres\) +3  3, \d+ s  ok", row)
    assert ended.stdout.endswith("\nNo finding of severity notice or worse.\n")
    until(lambda: own_sessions(database.dsn()) == 0)


def test_the_age_of_a_hold_counts_from_before_the_first_poll(database: Database) -> None:
    """A single poll finds a session that is over the limit already."""
    with aborted_transaction(database.dsn(application_name="jobs")) as pid:
        _until_older(database, pid, seconds=1.1)
        code, server = document(*of_database(database, "--polls", "1", "--hold-limit", "1s"))
    assert code == 1
    (finding,) = server["findings"]
    assert (finding["kind"], finding["application"], finding["sessions"]) == ("transaction_held", "jobs", [pid])


def _until_older(database: Database, pid: int, *, seconds: float) -> None:
    query = "SELECT clock_timestamp() - state_change > make_interval(secs => %s) FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(database.dsn(), autocommit=True) as connection:
        until(lambda: connection.execute(query, [seconds, pid]).fetchone() == (True,))


def test_a_hold_that_is_too_young_is_reported_and_for_waits_until_it_is_over(database: Database) -> None:
    """A hold within the limit passes, but the report mentions it. `--for` polls until the limit is over."""
    with idle_in_transaction(database.dsn(application_name="orders-api")):
        ended = finished(*of_database(database, "--polls", "2", "--interval", "1100ms"))
        assert ended.returncode == 0
        young = f"orders-api ({database.name}, postgres), "
        assert f"\nNot judged\n  {young}" in ended.stdout
        assert "s idle in transaction: younger than the hold limit of 60 s\n" in ended.stdout
        assert "  Use --for 1m to poll until the hold limit is over.\n" in ended.stdout
        code, server = document(*of_database(database, "--for", "2400ms", "--interval", "400ms", "--hold-limit", "2s"))
    assert (code, server["polls"], server["too_young_to_judge"]) == (1, 7, [])


def test_a_configured_limit_is_honoured_and_named(database: Database, tmp_path: Path) -> None:
    """Within it the check passes and says why; beyond it the finding names it, in the sentence and in JSON."""
    config = tmp_path / "config.yaml"
    with idle_in_transaction(database.dsn(application_name="etl-7"), LEAKED) as pid:
        _until_older(database, pid, seconds=2.1)
        once = of_database(database, "--polls", "1", "--hold-limit", "1s", "--config", str(config))
        config.write_text("hold_limits: [{application: 'etl-*', site: '/orders/*', limit: 30m}]\n")
        allowed = finished(*once)
        code, server = document(*once)
        config.write_text("hold_limits: [{application: 'etl-*', limit: 2s}]\n")
        over, found = document(*once)
    assert (allowed.returncode, code, over) == (0, 0, 1)
    assert re.search(
        rf"\nNot judged\n  etl-7 \({database.name}, postgres\), \d+ s idle in transaction: younger than its limit of "
        r"30 min by configuration\n",
        allowed.stdout,
    )
    (line,) = server["not_judged"]
    assert (line["reason"], line["limit_seconds"]) == ("configured_limit", 1800)
    (finding,) = found["findings"]
    assert finding["configured_limit_seconds"] == 2
    assert ", limit 2 s by configuration" in finding["message"]


def test_a_console_is_not_judged_unless_it_is_no_tool(database: Database) -> None:
    """The first thing that people try is BEGIN in psql. It must not end in silence."""
    with idle_in_transaction(database.dsn(application_name="psql")) as pid:
        _until_older(database, pid, seconds=1.1)
        once = of_database(database, "--polls", "1", "--hold-limit", "1s")
        ended = finished(*once)
        code, server = document(*once)
        judged = finished(*once, "--tools", "")
    assert (ended.returncode, code) == (0, 0)
    assert re.search(
        rf"\nNot judged\n  psql \({database.name}, postgres\), \d+ s idle in transaction: a console, reported only "
        r"when it blocks others or holds back vacuum, or when such sessions fill the server; `--tools ''` judges it\n",
        ended.stdout,
    )
    (line,) = server["not_judged"]
    assert (line["application"], line["reason"], line["sessions"]) == ("psql", "tool", 1)
    assert judged.returncode == 1
    assert "NOTICE  psql" in judged.stdout


def test_the_json_document_has_everything_that_the_text_has(database: Database) -> None:
    """It has clients with states and ages, and findings with evidence and advice, but no literal."""
    with idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED) as pid, idle(database.dsn()):
        code, server = document(*of_database(database, *SHORT))
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
    assert f"IN (VALUES\n  ({pid}, '" in finding["terminate"]
    assert SECRET not in json.dumps(server)


def test_a_client_without_application_name_is_named_by_its_role_and_database(database: Database) -> None:
    """In words, as the finding and the table say it. In JSON it is `(none)`, as in the metrics."""
    with idle_in_transaction(database.dsn()) as pid:
        _until_older(database, pid, seconds=1.1)
        once = of_database(database, "--polls", "1", "--hold-limit", "1s")
        ended = finished(*once)
        _, server = document(*once)
    name = f"postgres@{database.name}"
    assert f"\nNOTICE  {name}: 1 session idle in transaction at " in ended.stdout
    assert re.search(rf"\n{name} +1 ", ended.stdout)
    (finding,) = server["findings"]
    assert (finding["application"], finding["user"]) == ("(none)", "postgres")
    assert finding["message"].startswith(f"{name}: ")


def test_patterns_choose_which_clients_are_checked(database: Database) -> None:
    """Findings of other clients do not fail the gate and are not in the report. Patterns are shell patterns."""
    billing = idle_in_transaction(database.dsn(application_name="billing-1"))
    with billing as pid, idle(database.dsn(application_name="orders-api")):
        _until_older(database, pid, seconds=1.1)
        once = ("--polls", "1", "--hold-limit", "1s")
        assert finished(*of_database(database, *once, "--application", "billing-*")).returncode == 1
        others = finished(*of_database(database, *once, "--application", "orders-*"))
    assert others.returncode == 0
    assert "orders-api" in others.stdout
    assert "billing" not in others.stdout


def test_a_pattern_that_matches_no_client_is_no_success(database: Database) -> None:
    """The exit code is 2. The error names the clients that are there, most sessions first."""
    once = ("--polls", "1", "--format", "json")
    with idle(database.dsn(application_name="orders-api"), 2), idle(database.dsn(application_name="billing")):
        wrong = finished(*of_database(database, *once, "--application", "nope*"))
        elsewhere = finished("check", "--dsn", database.dsn(), *once, "--database", "no-such-*")
        allowed = finished(*of_database(database, *once, "--application", "nope*", "--allow-missing"))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == (
        f"pgwatch-sessions: error: --application 'nope*' --database '{database.name}' matches no client; "
        f"there are orders-api in {database.name}, billing in {database.name}; correct the pattern, or add "
        "--allow-missing if the client may have no session yet\n"
    )
    assert (elsewhere.returncode, elsewhere.stdout) == (2, "")
    assert database.name in elsewhere.stderr
    assert allowed.returncode == 0
    assert json.loads(allowed.stdout)["servers"][0]["clients"] == []


def test_of_many_clients_an_error_names_some(own_postgres: OwnPostgresFactory) -> None:
    """A server may have thousands of clients. On one without any, the error says that too."""
    server = own_postgres()
    with contextlib.ExitStack() as sessions:
        for number in range(12):
            sessions.enter_context(idle(server.dsn(application_name=f"job-{number:02}")))
        many = finished("check", "--polls", "1", "--dsn", server.dsn(), "--application", "orders")
    until(
        lambda: (
            "no client has a session"
            in finished("check", "--polls", "1", "--dsn", server.dsn(), "--application", "x").stderr
        )
    )
    assert "job-09 and 2 more; correct" in many.stderr


def test_a_server_that_cannot_be_polled_may_have_the_client() -> None:
    """Its failure decides the exit code."""
    ended = finished("check", "--polls", "1", "--dsn", "postgresql://postgres@127.0.0.1:1/x", "--application", "orders")
    assert ended.returncode == 3


def test_for_a_notice_a_longer_check_is_proposed(database: Database) -> None:
    """It is proposed if the polls took less than the hold limit."""
    with idle_in_transaction(database.dsn(application_name="orders-api")) as pid:
        _until_older(database, pid, seconds=1.1)
        short = finished(*of_database(database, "--polls", "1", "--hold-limit", "1s"))
        long = finished(*of_database(database, "--for", "1200ms", "--interval", "400ms", "--hold-limit", "1s"))
    assert "Use --for 2s to tell them apart." in short.stdout
    assert (long.returncode, "tell them apart" in long.stdout) == (1, False)


def test_a_limit_that_is_nearer_than_the_servers_is_shown(own_postgres: OwnPostgresFactory) -> None:
    """A role's own limit may be reached long before the server's. That of a role without sessions is not shown."""
    server = own_postgres()
    with role(server.dsn(), "app", connection_limit=4), role(server.dsn(), "other", connection_limit=1):
        with idle(server.dsn(user="app", application_name="orders-api"), 3):
            ended = finished("check", "--polls", "1", "--dsn", server.dsn())
        alone = finished("check", "--polls", "1", "--dsn", server.dsn())
    assert re.match(r"\S+: 1 poll, 4 of 97 slots used, 3 of 4 by role app, diagnosis: ok\n", ended.stdout)
    assert "by role" not in alone.stdout


def test_the_severity_that_fails_can_be_chosen(database: Database) -> None:
    """With `--fail-on warning` a notice passes, but is still in the report."""
    with idle_in_transaction(database.dsn(application_name="orders-api")) as pid:
        _until_older(database, pid, seconds=1.1)
        ended = finished(*of_database(database, "--polls", "1", "--hold-limit", "1s", "--fail-on", "warning"))
    assert ended.returncode == 0
    assert "NOTICE  orders-api" in ended.stdout
    assert ended.stdout.endswith("\nNo finding of severity warning or worse.\n")


def test_a_wrong_password_is_exit_3(own_postgres: OwnPostgresFactory) -> None:
    """The check ends at once, however long `--for` is, and shows no password."""
    server = own_postgres(hba=["host all locked 127.0.0.1/32 scram-sha-256"])
    with role(server.dsn(), "locked", password="right"):
        dsn = server.dsn(user="locked", password="wr0ng-secret")
        ended = finished("check", "--for", "1h", env=environment(DSN=dsn))
    assert (ended.returncode, ended.stderr) == (3, "")
    assert "Cannot poll this server: it rejects our login (authentication: " in ended.stdout
    assert "\nSet the role with -U or PGUSER, and the password with PGPASSWORD, " in ended.stdout
    assert "wr0ng-secret" not in ended.stdout


def test_hidden_states_are_exit_3(own_postgres: OwnPostgresFactory) -> None:
    """A role that may not see the states of other sessions finds no leak among them. The report has the GRANT."""
    server = own_postgres()
    with role(server.dsn(), "plain"), idle_in_transaction(server.dsn(application_name="orders-api")):
        ended = finished("check", "--polls", "1", "--dsn", server.dsn(user="plain"))
        missing = ("--application", "others", "--allow-missing")
        narrow = finished("check", "--polls", "1", "--dsn", server.dsn(user="plain"), *missing)
    assert ended.returncode == 3
    hidden = "1 of 1 session is hidden from the monitoring role: leaks among them cannot be seen."
    assert f"{hidden}\n" in ended.stdout
    assert 'To show hidden sessions, run as a superuser: GRANT pg_monitor TO "plain";\n' in ended.stdout
    assert narrow.returncode == 0


def test_of_several_servers_all_are_checked_and_the_highest_code_counts(database: Database, tmp_path: Path) -> None:
    """If one server is down, the findings of the other are still in the report."""
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
    assert "Cannot poll this server: it cannot be reached (network: " in ended.stdout
    assert "NOTICE  orders-api" in ended.stdout
    assert {server["server"]: server["exit_code"] for server in found["servers"]} == {"down": 3, "shop": 1}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--polls", "0"], "--polls: must be at least 1"),
        (["--for", "0"], "--for: must be longer than 0s"),
        (["--for", "soon"], "--for: must be a duration"),
        (["--polls", "2", "--for", "3s"], "not allowed with argument"),
        (["--fail-on", "nothing"], "--fail-on: invalid choice"),
        (["--hold-limit", "0"], "--hold-limit: must be from 1s to 168h"),
        (["extra"], "unexpected argument, because each value follows its option; write a connection string after -d"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str) -> None:
    """Exit 2, and the error names the option. No server is polled."""
    ended = finished("check", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in ended.stderr


def test_the_daemons_interval_is_not_the_checks(database: Database) -> None:
    """An environment in which the daemon polls once an hour does not make a check last for hours."""
    env = environment(INTERVAL="1h", DSN=database.dsn())
    assert (
        finished(
            "check", "--polls", "2", "--interval", "100ms", "--database", database.name, "--allow-missing", env=env
        ).returncode
        == 0
    )


def test_a_terminal_gets_colours_progress_and_folded_text(database: Database) -> None:
    """A pipe gets none of them, and NO_COLOR turns colours off."""
    with idle_in_transaction(database.dsn(application_name="orders-api")) as pid:
        _until_older(database, pid, seconds=1.1)
        command = of_database(database, "--polls", "2", "--interval", "150ms", "--hold-limit", "1s")
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
    """The help has examples and exit codes."""
    text = finished("check", "--help").stdout
    assert "examples:\n  pgwatch-sessions check --dsn " in text
    assert "exit codes:\n  0  no finding of the --fail-on severity or worse\n  1  a finding of" in text


def test_without_patterns_every_client_counts(own_postgres: OwnPostgresFactory) -> None:
    """Sessions of every database are checked."""
    server: Postgres = own_postgres().server
    with idle_in_transaction(server.dsn(database="template1")), idle_in_transaction(server.dsn()):
        code, found = document("check", "--dsn", server.dsn(), *SHORT)
    assert code == 1
    assert sorted(finding["database"] for finding in found["findings"]) == ["postgres", "template1"]


def test_the_example_for_ci_uses_what_there_is() -> None:
    """It is YAML, and every option that it gives to our commands exists."""
    steps = yaml.safe_load(EXAMPLE.read_text())["jobs"]["connection-leaks"]["steps"]
    commands = re.findall(
        r"pgwatch-sessions ((?:check|record|replay) .*)", "\n".join(step.get("run", "") for step in steps)
    )
    assert [command.split()[0] for command in commands] == ["record", "check", "replay"]
    for command in commands:
        name, *words = command.split()
        text = finished(name, "--help").stdout
        assert [word for word in words if word.startswith("--") and f"  {word} " not in text] == []
