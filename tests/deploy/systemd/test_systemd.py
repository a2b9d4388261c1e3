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
from tests.deploy.systemd import sandbox
from tests.deploy.systemd.unit import (
    ROOT,
    SYSTEMD,
    UNIT,
    allowed_calls,
    is_set,
    needs_seccomp,
    needs_systemd,
    value,
    values,
)
from tests.support.daemons import Daemon, logged
from tests.support.programs import PROGRAM, environment, finished
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until

ENV_FILE = SYSTEMD / "pgwatch-sessions.env"
README = (SYSTEMD / "README.md").read_text(encoding="utf-8")
PASSWORD = "p@ss: word/?"


def assignments(text: str) -> dict[str, str]:
    """Read an environment file as systemd does, as far as ours goes: neither quotes nor continued lines."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not any(character in line for line in lines for character in "\"'\\")
    return dict(line.split("=", 1) for line in lines)


def variables(credentials: Path) -> dict[str, str]:
    """Return the unit's environment: its own, and that of the environment file, which wins."""
    own = values(UNIT.read_text(encoding="utf-8"), "Environment")
    given = dict(line.replace("%d", str(credentials)).split("=", 1) for line in own)
    return {**given, **assignments(ENV_FILE.read_text(encoding="utf-8"))}


def credentials_in(folder: Path) -> Path:
    """Put the credentials that the unit loads into a folder."""
    folder.mkdir()
    for credential in values(UNIT.read_text(encoding="utf-8"), "LoadCredential"):
        (folder / credential.partition(":")[0]).write_text(PASSWORD + "\n")
    return folder


# --- the file ---


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """With the program where the unit says; a warning fails it too."""
    checked = verified(UNIT.read_text(encoding="utf-8"), tmp_path)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(("line", "wrong"), [("PrivateTmp=", "PrivatTmp="), ("bin/pgwatch-sessions", "bin/pgwatch")])
def test_a_line_that_is_wrong_is_found(tmp_path: Path, line: str, wrong: str) -> None:
    """A key that there is not, a program that is not there."""
    checked = verified(UNIT.read_text(encoding="utf-8").replace(line, wrong), tmp_path)
    assert checked.stderr != ""


def verified(unit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Have systemd check a unit whose program is a stand-in below a folder."""
    program = folder / "opt" / "pgwatch-sessions" / "bin" / "pgwatch-sessions"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    file = folder / UNIT.name
    file.write_text(unit.replace("/opt/", f"{folder}/opt/"))
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, timeout=60, check=False
    )


@needs_systemd
def test_it_is_closed(tmp_path: Path) -> None:
    """By systemd's own measure at most 1.5 of 10; and the same measure finds an open one."""
    assert exposure(UNIT) <= 1.5
    opened = tmp_path / UNIT.name
    closing = re.compile(r"^(SystemCallFilter|ProtectSystem|DynamicUser)=.*\n", re.MULTILINE)
    opened.write_text(closing.sub("", UNIT.read_text(encoding="utf-8")))
    assert exposure(opened) > 1.5


def exposure(unit: Path) -> float:
    """Return how exposed systemd says a unit is, from 0 to 10."""
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (found,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    return float(found)


def test_a_wrong_configuration_is_not_tried_again() -> None:
    """Everything else that ends the daemon is."""
    assert value("Restart") == "on-failure"
    assert value("RestartPreventExitStatus") == str(EXIT_USAGE)
    command = shlex.split(value("ExecStart"))[1:]
    assert finished(*command, env=environment(INTERVALL="1")).returncode == EXIT_USAGE


def test_memory_suffices_and_ends_somewhere() -> None:
    """75 MiB at 10,000 sessions fit."""
    assert int(value("MemoryMax").removesuffix("M")) >= 75 * 1.5


# --- the daemon, as the unit starts it ---


@contextlib.contextmanager
def started(
    own_postgres: OwnPostgresFactory, tmp_path: Path, *, more: Mapping[str, str], inside: tuple[str, ...] = ()
) -> Iterator[Daemon]:
    """Run the unit's command in the unit's environment, with the shipped environment file, on a real server."""
    own = own_postgres(hba=["host all pgwatch_sessions 127.0.0.1/32 scram-sha-256"])
    with psycopg.connect(own.dsn()) as connection:
        connection.execute((ROOT / "deploy" / "sql" / "create_monitor_role.sql").read_bytes())
        connection.execute(f"ALTER ROLE pgwatch_sessions PASSWORD '{PASSWORD}'".encode())
    env = {**environment(), **variables(credentials_in(tmp_path / "credentials")), **more}
    dsn = env["PGWATCH_SESSIONS_DSN"]
    # A name to look up, as in real life; without TLS, which the embedded server has not.
    env["PGWATCH_SESSIONS_DSN"] = dsn.replace("db.example:5432", f"localhost:{own.port}").partition("?")[0]
    env["PGWATCH_SESSIONS_LISTEN"] = "127.0.0.1:0"
    program, *arguments = shlex.split(value("ExecStart"))
    assert program == "/opt/pgwatch-sessions/bin/pgwatch-sessions"
    log = tmp_path / "log"
    log.touch()
    with child_process((*inside, *PROGRAM, *arguments), env=env, log=log) as process:
        begun = until(lambda: [event for event in logged(log) if event["event"] == "started"], within=20)
        yield Daemon(process=process, log=log, address=begun[0]["address"])
        process.supervisor.terminate()
        assert process.wait(timeout=10) == 0
    assert PASSWORD not in log.read_text()


def test_it_gets_in_with_the_credential(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The role of deploy/sql, the password that systemd hands over, the names of the environment file."""
    with started(own_postgres, tmp_path, more={}) as daemon:
        scrape = daemon.scrape_when_up()
        assert scrape.value("hidden_sessions", server="orders") == 0


@needs_systemd
@needs_seccomp
def test_it_lives_with_what_the_unit_allows(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """Under the same filters of system calls, of address families and of memory, it polls, answers and records."""
    assert value("MemoryDenyWriteExecute") == value("NoNewPrivileges") == "yes"
    recordings = tmp_path / "recordings"
    more = {"PGWATCH_SESSIONS_RECORD_DIR": str(recordings), "PGWATCH_SESSIONS_INTERVAL": "100ms"}
    with started(own_postgres, tmp_path, more=more, inside=confined()) as daemon:
        daemon.scrape_when(lambda scrape: scrape.value("up") == 1 and scrape.polls() > 5)
        assert daemon.get("/").status_code == 200
        assert until(lambda: list(recordings.iterdir()))
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
def test_the_sandbox_of_these_tests_is_closed(code: str, refused: str) -> None:
    """It refuses what the unit refuses; and passwords of the page are checked in it."""
    said = subprocess.run(
        [*confined(), sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused in said.stderr
    assert bool(said.returncode) == bool(refused), said.stderr


def confined() -> tuple[str, ...]:
    """Return what to put before a command so that it may do what the unit allows."""
    families = ",".join(value("RestrictAddressFamilies").split())
    return sys.executable, str(sandbox.__file__), families, ",".join(allowed_calls())


# --- the words around it ---


def test_all_that_the_environment_file_offers_is_a_setting(tmp_path: Path) -> None:
    """What is commented out too; the whole is valid."""
    text = ENV_FILE.read_text(encoding="utf-8")
    everything = re.sub(r"^#(?=PGWATCH)", "", text, flags=re.MULTILINE)
    assert {*assignments(everything)} <= {each.variable for each in describe()}
    assert len(assignments(everything)) == 4
    env = {**environment(), **variables(credentials_in(tmp_path / "credentials")), **assignments(everything)}
    said = finished("config", env=env)
    assert said.returncode == 0, said.stderr


def test_recordings_go_where_the_unit_lets_them() -> None:
    """The state directory."""
    (folder,) = re.findall(r"RECORD_DIR=(\S+)", ENV_FILE.read_text(encoding="utf-8"))
    assert folder == f"/var/lib/{value('StateDirectory')}"


def test_the_steps_of_the_readme_bring_what_the_unit_needs(tmp_path: Path) -> None:
    """The `install` commands, run on a root of its own: each file where it is looked for, the password closed."""
    steps = [shlex.split(step) for step in re.findall(r"^# (.+)$", README, re.MULTILINE)]
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    for step in steps:
        if step[0] == "install":
            moved = [word.replace("/etc/", f"{tmp_path}/etc/") for word in step]
            subprocess.run(moved, cwd=ROOT, timeout=60, check=True)

    def there(path: str) -> Path:
        return tmp_path / path.lstrip("/")

    assert there(f"/etc/systemd/system/{UNIT.name}").read_bytes() == UNIT.read_bytes()
    assert there(value("EnvironmentFile")).read_bytes() == ENV_FILE.read_bytes()
    password = there(value("LoadCredential").partition(":")[2])
    assert password.stat().st_mode & 0o777 == 0o600
    (venv,) = [step[-1] for step in steps if step[1:3] == ["-m", "venv"]]
    assert value("ExecStart") == f"{venv}/bin/pgwatch-sessions run"
    assert [f"{venv}/bin/pip", "install", "."] in steps


def test_several_servers_as_the_readme_says(tmp_path: Path) -> None:
    """The drop-in and the file, word by word, are a valid configuration with both passwords found."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    drop_in, listed = (re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)[0] for kind in ("ini", "yaml"))
    unit = UNIT.read_text(encoding="utf-8") + drop_in
    names = [each.partition(":")[0] for each in values(unit, "LoadCredential")]
    for name in names:
        (credentials / name).write_text(PASSWORD)
    where = f"/run/credentials/{UNIT.name}"
    assert listed.count(f"{where}/") == len(names) == 2
    file = tmp_path / "pgwatch-sessions.yaml"
    file.write_text(listed.replace(where, str(credentials)))
    own = [line for line in unit.splitlines() if line.startswith("Environment=")]
    env = dict(line.removeprefix("Environment=").replace("%d", str(credentials)).split("=", 1) for line in own)
    said = finished("config", "--config", str(file), env={**environment(), **env})
    assert said.returncode == 0, said.stderr
    assert finished("config", "--config", str(file), env={**environment(), **variables(credentials)}).returncode == 2


def test_no_right_is_left() -> None:
    """Both lists of capabilities are there, and empty."""
    for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
        assert is_set(key)
        assert values(UNIT.read_text(encoding="utf-8"), key) == []


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    """Seen from its folder."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert links
    assert [link for link in links if not (SYSTEMD / link).exists()] == []
