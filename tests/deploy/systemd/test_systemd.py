import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from pgwatch_sessions.commands.command import EXIT_USAGE
from pgwatch_sessions.demo.child_process import child_process
from pgwatch_sessions.settings.listing import describe
from pgwatch_sessions.watchdog import MAX_TICKS, TICK_SECONDS
from tests.deploy.systemd import sandbox
from tests.deploy.systemd.unit import (
    ROOT,
    SYSTEMD,
    UNIT,
    allowed_calls,
    is_set,
    needs_seccomp,
    needs_systemd,
    unit_value,
    unit_values,
)
from tests.support.daemons import Daemon, logged
from tests.support.programs import PROGRAM, environment, finished
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until
from tests.test_systemd_messages import manager

ENV_FILE = SYSTEMD / "pgwatch-sessions.env"
README = (SYSTEMD / "README.md").read_text(encoding="utf-8")
PASSWORD = "p@ss: word/?"


def assignments(text: str) -> dict[str, str]:
    """Read an environment file as systemd does. Quotes and continued lines are not supported."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not any(character in line for line in lines for character in "\"'\\")
    return dict(line.split("=", 1) for line in lines)


def unit_variables(credentials: Path) -> dict[str, str]:
    """Return the unit's environment: its own variables, overridden by those of the environment file."""
    own = unit_values(UNIT.read_text(encoding="utf-8"), "Environment")
    folders = {"%d": str(credentials), "%S": str(credentials.parent / "lib")}
    from_unit = dict(re.sub("%[dS]", lambda found: folders[found[0]], line).split("=", 1) for line in own)
    return {**from_unit, **assignments(ENV_FILE.read_text(encoding="utf-8"))}


def write_credentials(folder: Path) -> Path:
    """Write the credentials that the unit loads into a folder."""
    folder.mkdir()
    for credential in unit_values(UNIT.read_text(encoding="utf-8"), "LoadCredential"):
        (folder / credential.partition(":")[0]).write_text(PASSWORD + "\n")
    return folder


# --- the file ---


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """`systemd-analyze verify` has no errors and no warnings."""
    checked = verify_unit(UNIT.read_text(encoding="utf-8"), tmp_path)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(("line", "wrong"), [("PrivateTmp=", "PrivatTmp="), ("bin/pgwatch-sessions", "bin/pgwatch")])
def test_a_wrong_line_is_found(tmp_path: Path, line: str, wrong: str) -> None:
    """The test above can fail: an unknown key and a missing program are reported."""
    checked = verify_unit(UNIT.read_text(encoding="utf-8").replace(line, wrong), tmp_path)
    assert checked.stderr != ""


def verify_unit(unit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `systemd-analyze verify` on a unit with a dummy program below a folder."""
    program = folder / "opt" / "pgwatch-sessions" / "bin" / "pgwatch-sessions"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    file = folder / UNIT.name
    file.write_text(unit.replace("/opt/", f"{folder}/opt/"))
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, timeout=60, check=False
    )


@needs_systemd
def test_the_exposure_level_is_low(tmp_path: Path) -> None:
    """It is at most 1.5 of 10, and higher without some of the restrictions."""
    assert exposure(UNIT) <= 1.5
    opened = tmp_path / UNIT.name
    closing = re.compile(r"^(SystemCallFilter|ProtectSystem|DynamicUser)=.*\n", re.MULTILINE)
    opened.write_text(closing.sub("", UNIT.read_text(encoding="utf-8")))
    assert exposure(opened) > 1.5


def exposure(unit: Path) -> float:
    """Return the exposure level of a unit according to systemd, from 0 to 10."""
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (found,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    return float(found)


def test_systemd_does_not_restart_after_a_wrong_configuration() -> None:
    """It restarts after all other failures."""
    assert unit_value("Restart") == "on-failure"
    assert unit_value("RestartPreventExitStatus") == str(EXIT_USAGE)
    command = shlex.split(unit_value("ExecStart"))[1:]
    assert finished(*command, env=environment(INTERVALL="1")).returncode == EXIT_USAGE


def test_a_reload_sends_the_signal_that_the_daemon_reloads_on() -> None:
    """`systemctl reload` works, and never ends the daemon."""
    assert unit_value("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_systemd_waits_longer_than_the_daemons_own_watchdog() -> None:
    """A daemon that is stuck can log where, before systemd kills it."""
    assert unit_value("Type") == "notify"
    assert int(unit_value("WatchdogSec").removesuffix("s")) >= MAX_TICKS * TICK_SECONDS * 1.5


def test_the_memory_limit_is_sufficient() -> None:
    """It is above the 75 MiB that 10,000 sessions need."""
    assert int(unit_value("MemoryMax").removesuffix("M")) >= 75 * 1.5


# --- the daemon, as the unit starts it ---


@contextlib.contextmanager
def run_unit(
    own_postgres: OwnPostgresFactory,
    tmp_path: Path,
    *,
    overrides: Mapping[str, str],
    sandbox_command: tuple[str, ...] = (),
) -> Iterator[Daemon]:
    """Run the unit's command with the unit's environment and the shipped environment file, for a real server."""
    own = own_postgres(hba=["host all pgwatch_sessions 127.0.0.1/32 scram-sha-256"])
    with psycopg.connect(own.dsn()) as connection:
        connection.execute((ROOT / "deploy" / "sql" / "create_monitor_role.sql").read_bytes())
        connection.execute(f"ALTER ROLE pgwatch_sessions PASSWORD '{PASSWORD}'".encode())
    env = {**environment(), **unit_variables(write_credentials(tmp_path / "credentials")), **overrides}
    dsn = env["PGWATCH_SESSIONS_DSN"]
    # A host name that has to be resolved; without TLS, which the embedded server does not have.
    env["PGWATCH_SESSIONS_DSN"] = dsn.replace("db.example:5432", f"localhost:{own.port}").partition("?")[0]
    env["PGWATCH_SESSIONS_LISTEN"] = "127.0.0.1:0"
    program, *arguments = shlex.split(unit_value("ExecStart"))
    assert program == "/opt/pgwatch-sessions/bin/pgwatch-sessions"
    log = tmp_path / "log"
    log.touch()
    with child_process((*sandbox_command, *PROGRAM, *arguments), env=env, log=log) as process:
        started = until(lambda: [event for event in logged(log) if event["event"] == "started"], within=20)
        yield Daemon(process=process, log=log, address=started[0]["address"])
        process.supervisor.terminate()
        assert process.wait(timeout=10) == 0
    assert PASSWORD not in log.read_text()


def test_the_daemon_connects_with_the_credential(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """It uses the role of deploy/sql, the password from the credential and the server name of the environment file."""
    with run_unit(own_postgres, tmp_path, overrides={}) as daemon:
        scrape = daemon.scrape_when_up()
        assert scrape.value("hidden_sessions", server="orders") == 0


@needs_systemd
@needs_seccomp
def test_the_daemon_works_within_the_restrictions_of_the_unit(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """With the same filters of system calls, address families and memory, it polls, serves and writes its files."""
    assert unit_value("MemoryDenyWriteExecute") == unit_value("NoNewPrivileges") == "yes"
    recordings = tmp_path / "recordings"
    overrides = {"PGWATCH_SESSIONS_RECORD_DIR": str(recordings), "PGWATCH_SESSIONS_INTERVAL": "100ms"}
    overrides |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "90000000"}
    with (
        manager(overrides["NOTIFY_SOCKET"]) as systemd,
        run_unit(own_postgres, tmp_path, overrides=overrides, sandbox_command=sandboxed_command()) as daemon,
    ):
        assert [systemd.recv(64) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
        daemon.scrape_when(lambda scrape: scrape.value("up") == 1 and scrape.polls() > 5)
        assert daemon.get("/").status_code == 200
        assert until(lambda: list(recordings.iterdir()))
        assert until(lambda: list((tmp_path / "lib/pgwatch-sessions").glob("orders.state.json.gz")))
    assert "recording_failed" not in daemon.log.read_text()


@needs_systemd
@needs_seccomp
@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("import os; os.sched_setaffinity(0, [0])", "PermissionError"),
        ("import os; os.setuid(0)", "PermissionError"),
        ("import socket; socket.socket(socket.AF_NETLINK)", "not supported"),
        ("import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)", "PermissionError"),
        ("import socket; socket.socket(socket.AF_INET6); socket.socket(socket.AF_UNIX)", ""),
        ("import ctypes; ctypes.CFUNCTYPE(None)(print)()", ""),
        ("import bcrypt; assert bcrypt.checkpw(b'a', bcrypt.hashpw(b'a', bcrypt.gensalt(4)))", ""),
    ],
    ids=["resources", "privileged", "family", "memory", "families", "ctypes", "bcrypt"],
)
def test_the_test_sandbox_has_the_restrictions_of_the_unit(code: str, refused: str) -> None:
    """It refuses what the unit refuses. The daemon's own needs, such as bcrypt, work in it."""
    result = subprocess.run(
        [*sandboxed_command(), sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused in result.stderr
    assert bool(result.returncode) == bool(refused), result.stderr


def sandboxed_command() -> tuple[str, ...]:
    """Return the command prefix that restricts a command as the unit does."""
    families = ",".join(unit_value("RestrictAddressFamilies").split())
    return sys.executable, str(sandbox.__file__), families, ",".join(allowed_calls())


# --- the environment file and the README ---


def test_every_variable_in_the_environment_file_is_a_setting(tmp_path: Path) -> None:
    """With the commented variables switched on, the configuration is valid, too."""
    text = ENV_FILE.read_text(encoding="utf-8")
    everything = re.sub(r"^#(?=PGWATCH)", "", text, flags=re.MULTILINE)
    assert {*assignments(everything)} <= {each.variable for each in describe()}
    assert len(assignments(everything)) == 4
    env = {**environment(), **unit_variables(write_credentials(tmp_path / "credentials")), **assignments(everything)}
    result = finished("config", env=env)
    assert result.returncode == 0, result.stderr


def test_the_folder_for_recordings_and_the_state_is_the_state_directory() -> None:
    """The unit allows the daemon to write only there. systemd writes `%S` for /var/lib."""
    (folder,) = re.findall(r"RECORD_DIR=(\S+)", ENV_FILE.read_text(encoding="utf-8"))
    (state_folder,) = re.findall(r"STATE_DIR=(\S+)", UNIT.read_text(encoding="utf-8"))
    assert folder == state_folder.replace("%S", "/var/lib") == f"/var/lib/{unit_value('StateDirectory')}"


def test_the_commands_of_the_readme_install_what_the_unit_needs(tmp_path: Path) -> None:
    """The `install` commands put each file at the path in the unit. Only the owner can read the password."""
    steps = [shlex.split(step) for step in re.findall(r"^# (.+)$", README, re.MULTILINE)]
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for step in steps:
        if step[0] == "install":
            command = [word.replace("/etc/", f"{tmp_path}/etc/") for word in step]
            subprocess.run(command, cwd=ROOT, timeout=60, check=True)

    def installed(path: str) -> Path:
        return tmp_path / path.lstrip("/")

    assert installed(f"/etc/systemd/system/{UNIT.name}").read_bytes() == UNIT.read_bytes()
    assert installed(unit_value("EnvironmentFile")).read_bytes() == ENV_FILE.read_bytes()
    password = installed(unit_value("LoadCredential").partition(":")[2])
    assert password.stat().st_mode & 0o777 == 0o600
    (venv,) = [step[-1] for step in steps if step[1:3] == ["-m", "venv"]]
    assert unit_value("ExecStart") == f"{venv}/bin/pgwatch-sessions run"
    assert [f"{venv}/bin/pip", "install", "."] in steps


def test_the_example_with_several_servers_in_the_readme_works(tmp_path: Path) -> None:
    """The drop-in and the file are a valid configuration, and both passwords are found."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    drop_in, listed = (re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)[0] for kind in ("ini", "yaml"))
    unit = UNIT.read_text(encoding="utf-8") + drop_in
    names = [each.partition(":")[0] for each in unit_values(unit, "LoadCredential")]
    for name in names:
        (credentials / name).write_text(PASSWORD)
    where = f"/run/credentials/{UNIT.name}"
    assert listed.count(f"{where}/") == len(names) == 2
    file = tmp_path / "pgwatch-sessions.yaml"
    file.write_text(listed.replace(where, str(credentials)))
    own = [line for line in unit.splitlines() if line.startswith("Environment=")]
    env = dict(line.removeprefix("Environment=").replace("%d", str(credentials)).split("=", 1) for line in own)
    result = finished("config", "--config", str(file), env={**environment(), **env})
    assert result.returncode == 0, result.stderr
    assert (
        finished("config", "--config", str(file), env={**environment(), **unit_variables(credentials)}).returncode == 2
    )


def test_the_unit_has_no_capabilities() -> None:
    """Both lists of capabilities are set and empty."""
    for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert is_set(key)
        assert unit_values(UNIT.read_text(encoding="utf-8"), key) == []


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    """Links are relative to the README."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert links
    assert [link for link in links if not (SYSTEMD / link).exists()] == []
