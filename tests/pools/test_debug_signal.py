import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import Database

pytestmark = pytest.mark.slow

_APPLICATION = """
import os, sys
from sqlalchemy import create_engine
from pgwatch_sessions.pools import instrument
from pgwatch_sessions.pools.debug_signal import report_on_signal

engine = create_engine(sys.argv[1], pool_size=1)
instrument(engine, name="orders")
report_on_signal()
def read_order():
    return engine.connect()
out = read_order()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a folder for temporary files of its own."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


@pytest.fixture
def application(database: Database, environment: dict[str, str], tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    """Return a process that leaks a connection and answers the signal."""
    program = tmp_path / "orders.py"
    program.write_text(_APPLICATION, encoding="utf-8")
    url = database.dsn().replace("postgresql:", "postgresql+psycopg:")
    with subprocess.Popen(
        [sys.executable, program, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": str(Path.cwd())},
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()
        process.wait(timeout=10)


def _ask(environment: dict[str, str], *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pgwatch_sessions.pools", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=30)


def test_the_pools_of_a_running_process_are_printed(
    application: "subprocess.Popen[str]", environment: dict[str, str]
) -> None:
    """As text for people, as JSON for programs; the process goes on."""
    told = _ask(environment, application.pid)
    pool, borrowed = told.stdout.splitlines()
    assert pool == (
        "orders (sqlalchemy QueuePool, at most 11): 1 used, 0 idle, 0 waiting, 0 timed out, "
        "0 returned by the garbage collector"
    )
    assert borrowed.endswith(" s  orders.py:11 in read_order")
    document = json.loads(_ask(environment, application.pid, "--json", "--older-than", 600).stdout)
    assert document["pid"] == application.pid
    assert [(pool["name"], pool["used"], pool["borrowed"]) for pool in document["pools"]] == [("orders", 1, [])]
    assert application.poll() is None


def test_a_process_that_does_not_answer_gets_no_signal(environment: dict[str, str]) -> None:
    """To a process that does not know the signal, it would be the end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment) as process:
        told = _ask(environment, process.pid)
        assert (told.returncode, process.poll()) == (1, None)
        assert f"process {process.pid} of this user does not answer: it must call" in told.stderr
        process.kill()


def test_a_process_that_has_ended_is_told_from_one_that_has_its_number_now(
    application: "subprocess.Popen[str]", environment: dict[str, str], tmp_path: Path
) -> None:
    """After a kill, its file is left behind; another process may get its number."""
    (announced,) = tmp_path.glob("pgwatch-sessions-pools-*/*.signal")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment) as other:
        announced.rename(announced.with_name(f"{other.pid}.signal"))
        told = _ask(environment, other.pid)
        assert (told.returncode, other.poll()) == (1, None)
        assert f"process {other.pid} has ended" in told.stderr
        other.kill()
    assert application.poll() is None


def test_an_ended_process_leaves_no_file(application: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """Neither its announcement nor an answer."""
    assert application.stdin is not None
    application.stdin.close()
    assert application.wait(timeout=10) == 0
    assert list(tmp_path.glob("pgwatch-sessions-pools-*/*")) == []


def test_a_signal_that_is_handled_already_is_left_alone(environment: dict[str, str]) -> None:
    """Gunicorn's master uses it."""
    program = (
        "import signal; signal.signal(signal.SIGUSR2, print)\n"
        "from pgwatch_sessions.pools.debug_signal import report_on_signal; report_on_signal()"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert f"{signal.SIGUSR2.name} is handled already: give report_on_signal() another one" in ran.stderr


def test_a_folder_that_others_may_read_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    """It could be a trap."""
    (tmp_path / f"pgwatch-sessions-pools-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"pgwatch-sessions-pools-{os.getuid()}").chmod(0o777)
    told = _ask(environment, os.getpid())
    assert told.returncode == 1
    assert "is not a folder that only this user may read: remove it" in told.stderr
