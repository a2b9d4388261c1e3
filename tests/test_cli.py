"""The command line as a process: its output and its exit codes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pgwatch_sessions import __version__
from pgwatch_sessions.settings.listing import describe
from tests.support.programs import PROGRAM, environment, finished

SCRIPT = shutil.which("pgwatch-sessions", path=str(Path(sys.executable).parent)) or "pgwatch-sessions"
SECRET = "s3cret-of-all"


@pytest.mark.parametrize("program", [(SCRIPT,), PROGRAM], ids=["script", "module"])
def test_both_entries_are_the_same_program(program: tuple[str, ...]) -> None:
    """The installed script and `python -m` show the same name and version."""
    ended = subprocess.run([*program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == f"pgwatch-sessions {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "error", "command"),
    [
        ((), "name a command: run, check, ", ""),
        (("chek",), "unknown command chek; did you mean check?", ""),
        (("-h", "db", "check"), "option -h before the command; write the command first", ""),
        (("run", "--hold-limt", "5s"), "unknown option --hold-limt; did you mean --hold-limit?", " run"),
        (("demo", "--interval", "1s"), "unknown option --interval", " demo"),
        (("check", "-h"), "--host: expected one argument", " check"),
        (("check", "--polls", "none"), "--polls: must be a whole number", " check"),
        (
            ("check", f"postgresql://u:{SECRET}@db"),
            "unexpected argument, because each value follows its option",
            " check",
        ),
        (("record", "--pasword=" + SECRET, "--out", "x"), "unknown option --pasword; did you mean", " record"),
    ],
)
def test_wrong_usage_is_one_line_and_the_way_to_the_help(arguments: tuple[str, ...], error: str, command: str) -> None:
    """Exit 2, nothing on standard output, and no secret: it may have been written where no value belongs."""
    ended = finished(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    line, help_line = ended.stderr.splitlines()
    assert line.startswith(f"pgwatch-sessions: error: {error}")
    assert help_line == f"Try `pgwatch-sessions{command} --help`."
    assert SECRET not in ended.stderr


def test_help_names_every_command() -> None:
    """The overview lists the commands, and each has a help of its own."""
    overview = finished("--help")
    assert overview.returncode == 0
    for command in ("run", "config", "demo"):
        assert f"\n    {command} " in overview.stdout
        ended = finished(command, "--help")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith(f"usage: pgwatch-sessions {command} [--help]")


@pytest.mark.parametrize("command", ["run", "config"])
def test_help_is_complete(command: str) -> None:
    """It has every setting with its option, variable, default and meaning, and the exit codes."""
    text = " ".join(finished(command, "--help").stdout.split())
    assert len(describe()) > 10
    for setting in describe():
        assert f" {setting.option} {setting.placeholder} {setting.description}" in text
        assert f"{f'Default: {setting.default}. ' if setting.default else ''}[{setting.variable}]" in text
    for loaded in ("[PGWATCH_SESSIONS_CONFIG]", "[PGWATCH_SESSIONS_SECRETS_DIR]"):
        assert loaded in text
    assert text.index("exit codes:") < text.index("2 wrong usage or configuration")


def test_config_shows_what_is_in_effect_and_no_secret(tmp_path: Path) -> None:
    """The output is a configuration file: given back, it says the same again."""
    dsn = f"postgresql://watcher:{SECRET}@db.example:6432/shop"
    shown = finished("config", "--interval", "3s", env=environment(DSN=dsn, HOLD_LIMIT="2m"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "interval: 3s  # --interval\n" in shown.stdout
    assert "hold_limit: 2m  # environment variable PGWATCH_SESSIONS_HOLD_LIMIT\n" in shown.stdout
    assert "name: db.example:6432  # default" in shown.stdout
    assert "postgresql://watcher:***@db.example:6432/shop" in shown.stdout
    assert SECRET not in shown.stdout
    file = tmp_path / "effective.yaml"
    file.write_text(shown.stdout)
    assert yaml.safe_load(finished("config", "--config", str(file)).stdout) == yaml.safe_load(shown.stdout)


@pytest.mark.parametrize("command", ["run", "config"])
def test_all_errors_are_reported_at_once_and_no_secret(command: str, tmp_path: Path) -> None:
    """Errors of all sources come together: one line each with its place, exit 2, no traceback, nothing on stdout."""
    file = tmp_path / "broken.yaml"
    file.write_text(f"""\
intervall: 10s
max_clients: many
servers:
  - name: shop
    dsn: postgresql://u:{SECRET}@db1/shop
    password_file: {tmp_path}/not-there
  - name: shop
    dsn: postgresql://u:{SECRET}@db2:99999/shop
""")
    env = environment(
        CONFIG=str(file), DSN=f"postgresql://u:{SECRET}@db3/shop", TIMEOUT="soon", LISTEN="127.0.0.1:99999"
    )
    ended = finished(command, env=env)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert SECRET not in ended.stderr
    lines = ended.stderr.splitlines()
    assert all(line.startswith("pgwatch-sessions: error: ") for line in lines)
    expected = [
        (f"{file} line 1: intervall", "unknown setting; did you mean interval?"),
        (f"{file} line 2: max_clients", "must be a whole number"),
        (f"{file} line 6: servers[0].password_file", "not-there: no such file"),
        (f"{file} line 7: servers[1].name", "duplicate server name shop"),
        (f"{file} line 8: servers[1].dsn", "invalid host or port"),
        ("environment variable PGWATCH_SESSIONS_DSN", "conflicts with `servers`"),
        ("environment variable PGWATCH_SESSIONS_TIMEOUT", "must be a duration"),
        ("environment variable PGWATCH_SESSIONS_LISTEN", "must be an address"),
    ]
    for place, message in expected:
        assert [line for line in lines if f"error: {place}: " in line and message in line], (place, ended.stderr)
    assert len(lines) == len(expected), ended.stderr


def test_a_closed_pipe_is_no_error() -> None:
    """`pgwatch-sessions config | head -1` prints no error, and exits as a shell reports SIGPIPE."""
    env = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    for arguments in (["config"], ["run", "--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer) as closed:
            ended = subprocess.run(
                [*PROGRAM, *arguments], env=env, stdout=closed, stderr=subprocess.PIPE, timeout=30, check=False
            )
        assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_ctrl_c_prints_no_traceback() -> None:
    """The exit code is that of SIGINT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dsn = f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/x"
        command = [*PROGRAM, "config", "--test", "--dsn", dsn, "--timeout", "1m"]
        with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE) as process:
            accepted, _ = listener.accept()  # now the program waits for an answer
            with accepted:
                process.send_signal(signal.SIGINT)
                _, complaint = process.communicate(timeout=10)
    assert (process.returncode, complaint) == (128 + signal.SIGINT, b"")
