"""`pgwatch-sessions config`: where settings come from, and the trial of the connections on real servers."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.ports import free_port
from tests.support.programs import environment, finished
from tests.support.servers import Database, OwnPostgres, OwnPostgresFactory
from tests.support.situations import idle, role
from tests.support.terminals import at_terminal
from tests.support.waiting import until

RECORDING = Path(__file__).parent / "recordings" / "healthy.jsonl.gz"
SECRET = "s3cret-of-all"


def lines_of(output: str) -> dict[str, tuple[str, str]]:
    """Return sign and text of each check of one server, by the check's name."""
    found = {}
    for line in output.splitlines()[1:]:
        sign, rest = line.strip().split(" ", maxsplit=1)
        name, text = rest.strip().split("  ", maxsplit=1)
        found[name] = (sign, text.strip())
    return found


def test_every_setting_has_its_source_and_the_output_loads_again(tmp_path: Path) -> None:
    """Options, variables, files with their lines, a service, libpq's variables. No secret is shown."""
    services = tmp_path / "services"
    services.write_text(f"[lab]\nport=6432\npassword={SECRET}\noptions=-c app.token={SECRET}\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        "interval: 3s\nhold_limit: 2m\ndsn: postgresql://watcher@db/?service=lab\n"
        "hold_limits:\n- {application: 'etl-*', limit: 30m}\n- {site: /reports, limit: 90s}\n"
    )
    env = {**environment(HOLD_LIMIT="5m"), "PGSERVICEFILE": str(services), "PGSSLMODE": "require", "PGHOST": "other"}
    shown = finished("config", "--config", str(config), "-d", "shop", "--timeout", "1s", env=env)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert SECRET not in shown.stdout
    for line in (
        f"interval: 3s  # {config} line 1",
        "hold_limit: 5m  # environment variable PGWATCH_SESSIONS_HOLD_LIMIT",
        "timeout: 1s  # --timeout",
        "horizon: 1h  # default",
        f"- application: etl-*  # {config} line 5",
        f"  limit: 90s  # {config} line 6",
        f"  dsn: postgresql://watcher@db/shop?service=lab  # --dbname, {config} line 3",
    ):
        assert f"{line}\n" in shown.stdout
    rows = [line.removeprefix("  #   ").split(maxsplit=2) for line in shown.stdout.splitlines() if "  #   " in line]
    assert rows[1:] == [
        ["host", "db", f"{config} line 3"],
        ["port", "6432", f"service file {services} line 2"],
        ["user", "watcher", f"{config} line 3"],
        ["dbname", "shop", "--dbname"],
        ["sslmode", "require", "environment variable PGSSLMODE"],
        ["password", "set", f"service file {services} line 3"],
        ["service", "lab", f"{config} line 3"],
        ["options", "***", f"service file {services} line 4"],
    ]
    again = tmp_path / "again.yaml"
    again.write_text(shown.stdout)
    reloaded = finished("config", "--config", str(again), env={**env, "PGWATCH_SESSIONS_HOLD_LIMIT": ""})
    assert yaml.safe_load(reloaded.stdout) == yaml.safe_load(shown.stdout)


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    """A pipe gets YAML, unless --format says otherwise. A password file of libpq is named with its line."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"# mine\nother:*:*:*:x\ndb:5432:*:w:{SECRET}\n")
    passwords.chmod(0o600)
    env = {**environment(), "PGPASSFILE": str(passwords), "PGUSER": "w"}
    shown = at_terminal("config", "-h", "db", env=env)
    assert shown.code == 0
    assert SECRET not in shown.terminal
    shown_rows = [line.split(maxsplit=2) for line in shown.terminal.splitlines()]
    assert ["password", "set", f"password file {passwords} line 3"] in shown_rows
    assert ["host", "db", "--host"] in shown_rows
    assert finished("config", "--format", "table").stdout.startswith("server localhost:5432\n  name ")
    passwords.chmod(0o644)
    assert f"{passwords} is ignored: it must be a file that only its owner may read (chmod 600)" in (
        finished("config", "-h", "db", env=env).stdout
    )


def test_a_variable_of_another_program_is_announced_once() -> None:
    """On standard error, without its password."""
    env = {**environment(), "DATABASE_URL": f"postgresql+asyncpg://app:{SECRET}@db/shop"}
    shown = finished("config", env=env)
    assert shown.returncode == 0
    assert shown.stderr == (
        "pgwatch-sessions: using the server that DATABASE_URL names, without +asyncpg; to name another one, use --host "
        "or --dsn\n"
    )
    assert ["#", "user", "app", "environment variable DATABASE_URL"] in [
        line.split(maxsplit=3) for line in shown.stdout.splitlines()
    ]
    assert SECRET not in shown.stdout


def test_a_good_server_passes_the_trial(any_database: Database) -> None:
    """On each supported version, with the role that create_monitor_role.sql makes."""
    with role(any_database.dsn(), "watcher", member_of=["pg_monitor"], connection_limit=3) as watcher:
        ended = finished("config", "--test", "--dsn", any_database.dsn(user=watcher), env=environment(NAME="lab"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("lab\n")
    found = lines_of(ended.stdout)
    assert found["reachable"][0] == "✓"
    assert found["reachable"][1].startswith(f"as watcher, database {any_database.name}, in ")
    assert found["version"][1].startswith("PostgreSQL 1")
    assert found["pooler"] == ("✓", "none in between")
    assert found["TLS"] == ("✓", "not encrypted; the server is on this machine")
    assert found["pg_monitor"] == ("✓", "the state of all sessions is visible")
    assert found["connection limit"] == ("✓", "watcher may have 3 connections, 2 free")
    assert found["track_activities"][0] == "✓"
    assert found["track_activity_query_size"][0] == "!"


def test_what_should_be_changed_is_said(own_postgres: OwnPostgresFactory) -> None:
    """Each line says what to do. The exit code is 3, because states are hidden."""
    server = own_postgres(settings={"max_connections": "10", "reserved_connections": "2", "track_activities": "off"})
    with (
        role(server.dsn(), "watcher", connection_limit=1) as watcher,
        idle(server.dsn(), 3),
        idle(server.dsn(application_name="orders")),
    ):
        ended = finished("config", "--test", "--dsn", server.dsn(user=watcher))
    assert ended.returncode == 3
    found = lines_of(ended.stdout)
    assert found["pg_monitor"][0] == "✗"
    assert found["pg_monitor"][1].endswith('run as a superuser: GRANT pg_monitor TO "watcher";')
    assert found["connection limit"][0] == "!"
    assert found["connection limit"][1].startswith("watcher may have 1 connection, 0 free; another daemon or `check`")
    assert found["reserved slots"] == ("!", '2, but not for watcher; GRANT pg_use_reserved_connections TO "watcher"')
    assert found["slots"] == ("!", "5 of 5 for ordinary roles in use; the server is full")
    assert found["track_activities"][0] == "✗"
    assert found["application names"][1].startswith("3 of 5 sessions have none; set application_name")


def test_each_server_is_tried(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """One that cannot be reached does not hide the others. ASCII signs where the output cannot show the others."""
    server = own_postgres(settings={"track_activity_query_size": "4096", "reserved_connections": "3"})
    file = tmp_path / "config.yaml"
    with role(server.dsn(), "watcher", member_of=["pg_monitor", "pg_use_reserved_connections"]) as watcher:
        down = f"postgresql://u@127.0.0.1:{free_port()}/x"
        file.write_text(f"servers:\n- {{name: a, dsn: '{down}'}}\n- {{name: b, dsn: '{server.dsn(user=watcher)}'}}\n")
        env = {**environment(), "PYTHONIOENCODING": "ascii"}
        ended = finished("config", "--test", "--config", str(file), env=env)
    assert ended.returncode == 3
    assert ended.stdout.startswith("a\n  NO reachable  ")
    assert "connection refused at 127.0.0.1:" in ended.stdout
    _, good = ended.stdout.split("\nb\n")
    assert {line.split()[0] for line in good.splitlines()} == {"ok"}
    assert "3, and watcher may use them" in good
    assert "4096 B" in good


@contextlib.contextmanager
def pgbouncer(server: OwnPostgres, *options: str) -> Iterator[int]:
    """Give the port of a PgBouncer in front of the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is missing; on Debian and Ubuntu: apt install pgbouncer")
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)  # it refuses to run as root
        file = folder / "pgbouncer.ini"
        lines = (
            "[databases]",
            f"postgres = user=postgres host=127.0.0.1 port={server.port}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "auth_type = any",
            "unix_socket_dir =",
            f"pidfile = {folder}/pid",
            *options,
        )
        file.write_text("\n".join(lines) + "\n")
        user = "nobody" if os.geteuid() == 0 else None
        with subprocess.Popen([program, "-q", str(file)], stderr=subprocess.DEVNULL, user=user) as process:
            try:
                until(file.with_name("pid").exists)
                yield port
            finally:
                process.kill()


def test_a_pooler_is_recognised(own_postgres: OwnPostgresFactory) -> None:
    """PgBouncer refuses the settings of our session. If told to ignore them, it still gives a pid of its own."""
    server = own_postgres()
    with pgbouncer(server) as port:
        strict = finished("config", "--test", "--dsn", f"postgresql://postgres@127.0.0.1:{port}/postgres")
    assert strict.returncode == 3
    assert "that is a pooler: connect to PostgreSQL itself" in strict.stdout
    ignored = (
        "ignore_startup_parameters = default_transaction_read_only, statement_timeout, lock_timeout, work_mem, jit, "
        "idle_in_transaction_session_timeout, idle_session_timeout, tcp_user_timeout, tcp_keepalives_idle, "
        "tcp_keepalives_interval, tcp_keepalives_count, search_path"
    )
    with pgbouncer(server, ignored) as port:
        lenient = finished("config", "--test", "--dsn", f"postgresql://postgres@127.0.0.1:{port}/postgres")
    assert lenient.returncode == 3
    assert lines_of(lenient.stdout)["pooler"][0] == "✗"


def test_a_command_that_does_not_connect_ignores_other_programs_variables() -> None:
    """`replay` reads a recording, so the server of DATABASE_URL is nothing to it."""
    for url in (f"postgresql://app:{SECRET}@db/shop", "postgresql://db?channel_binding=require"):
        ended = finished("replay", str(RECORDING), env={**environment(), "DATABASE_URL": url})
        assert (ended.returncode, ended.stderr) == (0, "")
