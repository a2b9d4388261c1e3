"""The daemon while a directory of its own hangs: it starts, polls, answers, and ends when it is told to.

`make bench` measures how long the end takes.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.memory.state_file import StateFile
from tests.support.daemons import daemon, own_sessions
from tests.support.hanging_disk import hanging_mount, may_mount
from tests.support.programs import environment, finished
from tests.support.waiting import until

needs_mount = pytest.mark.skipif(not may_mount(), reason="may not mount a FUSE file system: needs Linux and root")


@needs_mount
@pytest.mark.parametrize("settings", [["record"], ["state"], ["record", "state"]], ids=" and ".join)
def test_a_signal_while_a_directory_hangs(postgres: Postgres, tmp_path: Path, settings: Sequence[str]) -> None:
    """That files cannot be written is logged once. Polls go on, and SIGTERM ends the daemon in order."""
    mount = tmp_path / "mount"
    options = [word for name in settings for word in (f"--{name}-dir", str(mount / name))]
    failures = [{"record": "recording_failed", "state": "state_failed"}[name] for name in settings]
    with hanging_mount(mount):
        with daemon(*options, dsn=postgres.dsn()) as watching:
            watching.scrape_when(lambda scrape: scrape.value("up") == 1 and scrape.polls() > 5)
            assert watching.get("/healthz").status_code == 200
            code = watching.end_by(signal.SIGTERM)
            assert [len(watching.events(failure)) for failure in failures] == [1] * len(failures)
            assert len(watching.events("stopped")) == 1
        assert code == 0
    until(lambda: own_sessions(postgres.dsn()) == 0)


def test_a_state_file_that_cannot_be_read_to_its_end(postgres: Postgres, tmp_path: Path) -> None:
    """A pipe in its place is opened only when somebody writes to it. The daemon starts and ends without."""
    os.mkfifo(StateFile(directory=tmp_path, server="shop", statements="redacted").path)
    with daemon("--name", "shop", "--state-dir", str(tmp_path), dsn=postgres.dsn()) as watching:
        watching.scrape_when_up()
        (ignored,) = watching.events("state_ignored")
        assert watching.end_by(signal.SIGTERM) == 0
    assert ignored["error"] == "cannot be read (not a regular file)"


@needs_mount
def test_an_error_in_the_program_ends_it_while_its_state_cannot_be_removed(postgres: Postgres, tmp_path: Path) -> None:
    """Removing the state is tried, and not waited for."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pgwatch_sessions.poller\n"
        "def advance(*args, **options):\n"
        "    raise LookupError('an error of our own')\n"
        "pgwatch_sessions.poller.advance = advance\n"
    )
    mount = tmp_path / "mount"
    with hanging_mount(mount):
        settings = environment(DSN=postgres.dsn(), LISTEN="127.0.0.1:0", STATE_DIR=str(mount / "state"))
        ended = finished("run", env={**settings, "PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 1
    assert "LookupError: an error of our own" in ended.stderr
