"""A daemon that is stuck ends; one that was only stopped goes on."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import daemon
from tests.support.programs import PROGRAM, environment, finished
from tests.support.waiting import until

#: Makes the watchdog wait for 5 s instead of a minute.
_IMPATIENT = "import pgwatch_sessions.watchdog as watchdog\nwatchdog.TICK_SECONDS, watchdog.MAX_TICKS = 0.1, 50\n"
_LIMIT_SECONDS = 5
_BLOCKED = """
import time, pgwatch_sessions.poller
def advance(*args, **options):
    time.sleep(3600)
pgwatch_sessions.poller.advance = advance
"""
_NEVER_POLLED = """
import asyncio, pgwatch_sessions.poller
async def poll(self):
    await asyncio.sleep(3600)
pgwatch_sessions.poller.HeldConnection.poll = poll
"""


@pytest.mark.parametrize(
    ("fault", "function", "reason"),
    [(_BLOCKED, "in advance", "the event loop has not run for 5 s"), (_NEVER_POLLED, "", "no poll has ended for ")],
    ids=["blocked", "never polled"],
)
def test_a_daemon_that_is_stuck_ends(
    postgres: Postgres, tmp_path: Path, fault: str, function: str, reason: str
) -> None:
    """Its last line says why, and the traceback above it where. The exit code makes systemd start it again."""
    (tmp_path / "sitecustomize.py").write_text(_IMPATIENT + fault)
    settings = environment(DSN=postgres.dsn(), LISTEN="127.0.0.1:0", INTERVAL="100ms", TIMEOUT="100ms")
    ended = finished("run", env={**settings, "PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 1
    assert function in ended.stderr
    last = json.loads(ended.stderr.splitlines()[-1])
    assert (last["event"], last["level"]) == ("stuck", "error")
    assert last["message"].startswith(reason)


def test_a_daemon_whose_log_is_not_taken_ends(postgres: Postgres, tmp_path: Path) -> None:
    """Standard error is a pipe that is full: the event loop waits in a write, and nobody can be told why."""
    (tmp_path / "sitecustomize.py").write_text(_IMPATIENT)
    settings = environment(DSN=postgres.dsn(), LISTEN="127.0.0.1:0")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b".")
    os.set_blocking(writer, True)
    try:
        ended = subprocess.run(
            [*PROGRAM, "run"],
            env={**settings, "PYTHONPATH": str(tmp_path)},
            stderr=writer,
            timeout=60,
            check=False,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert ended.returncode == 1


def test_a_daemon_whose_polls_do_not_end_is_not_healthy(postgres: Postgres, tmp_path: Path) -> None:
    """The probe says so before the process ends by itself, and SIGTERM still ends it in order."""
    (tmp_path / "sitecustomize.py").write_text(_NEVER_POLLED)
    with daemon(dsn=postgres.dsn(), timeout="100ms", variables={"PYTHONPATH": str(tmp_path)}) as watching:
        until(lambda: watching.get("/healthz").status_code == 503)
        assert watching.get("/healthz").text.startswith("no poll has ended for ")


def test_a_daemon_that_was_stopped_for_long_goes_on(postgres: Postgres, tmp_path: Path) -> None:
    """The metrics say how late it was, and how many polls were left out."""
    (tmp_path / "sitecustomize.py").write_text(_IMPATIENT)
    with daemon(dsn=postgres.dsn(), variables={"PYTHONPATH": str(tmp_path)}) as watching:
        before = watching.scrape_when_up()
        os.kill(watching.process.pid, signal.SIGSTOP)
        time.sleep(_LIMIT_SECONDS + 1)  # the duration is the situation
        os.kill(watching.process.pid, signal.SIGCONT)
        after = watching.scrape_when(
            lambda scrape: scrape.polls() > before.polls() + 3 and (scrape.value("loop_lag_seconds_sum") or 0) > 4
        )
        assert watching.get("/healthz").status_code == 200
    assert (after.value("polls_skipped_total") or 0) > 40
    assert (after.value("poll_lateness_seconds_sum") or 0) > _LIMIT_SECONDS
    assert after.value("reconnects_total") == 0
