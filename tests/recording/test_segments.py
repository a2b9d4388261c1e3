import errno
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pgwatch_sessions.core.model import Failure, FailureReason
from pgwatch_sessions.recording import Recorder
from tests.support.recording_contents import incompressible, polls_in
from tests.support.values import NOW

EXHAUSTED = Failure(reason=FailureReason.EXHAUSTED)


def files_in(directory: Path) -> list[Path]:
    """Return the files of a directory, oldest first."""
    return sorted(directory.iterdir())


def test_segments_stay_within_their_room(tmp_path: Path) -> None:
    """The oldest segments are deleted first, those of earlier runs included; other files are left alone."""
    room = 50_000
    directory = tmp_path / "made" / "here"
    directory.mkdir(parents=True)
    (directory / "notes.txt").write_bytes(b"x" * room)
    for run in range(2):
        recorder = Recorder(directory, max_bytes=room)
        for number in range(run * 100, run * 100 + 100):
            recorder.record("db/1", incompressible(number), at=NOW + number)
            recorder.record("db 1", incompressible(number), at=NOW + number)
            assert sum(path.stat().st_size for path in directory.glob("*.gz")) <= room
        recorder.close()
    recorded = sorted(directory.glob("*.gz"))
    assert sum(path.stat().st_size for path in recorded) > room * 3 / 4
    for server in ("db/1", "db 1"):
        taken = [poll.taken_at for poll in polls_in(*recorded) if poll.server == server]
        assert taken == [NOW + number for number in range(200 - len(taken), 200)]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in recorded)
    assert (directory / "notes.txt").exists()


def test_segment_ends_after_an_hour(tmp_path: Path) -> None:
    """Also if the clock is set back, even to the time that is in the name of another segment."""
    recorder = Recorder(tmp_path / "new", max_bytes=2**20)
    for at in (NOW, NOW + 3599, NOW + 3600, NOW + 3601, NOW - 3600, NOW):
        recorder.record("../..", EXHAUSTED, at=at)
    recorder.close()
    assert [len(polls_in(path)) for path in files_in(tmp_path / "new")] == [3, 1, 2]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


RECORDING = """
import resource, signal, sys
from pathlib import Path
from pgwatch_sessions.recording import Recorder
from tests.support.values import NOW
from tests.support.recording_contents import incompressible

recorder = Recorder(Path(sys.argv[1]), max_bytes=2**20)
"""


def run_recorder(directory: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has a `recorder`."""
    return subprocess.run(
        [sys.executable, "-c", RECORDING + program, str(directory)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def test_killed_daemon_loses_nothing(tmp_path: Path) -> None:
    """Each poll is in the file once it is recorded; the next run starts a segment of its own."""
    program = """
for number in range(5):
    recorder.record("db", incompressible(number), at=NOW)
signal.raise_signal(signal.SIGKILL)
"""
    for killed in (1, 2):
        assert run_recorder(tmp_path, program).returncode == -signal.SIGKILL
        assert len(polls_in(*files_in(tmp_path))) == 5 * killed


def test_full_disk_loses_only_new_polls(tmp_path: Path) -> None:
    """The error is raised, what was recorded stays readable, and recording continues when there is room again."""
    program = """
number = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    while True:
        recorder.record("db", incompressible(number), at=NOW + number)
        number += 1
except OSError:
    print(number)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        recorder.record("db", incompressible(number), at=NOW + number)
    except OSError:
        print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.record("db", incompressible(number), at=NOW + number)
recorder.close()
"""
    ran = run_recorder(tmp_path, program)
    assert ran.returncode == 0, ran.stderr
    recorded, *full = ran.stdout.split()
    assert full == ["full", "full"]
    assert int(recorded) > 0
    assert [len(polls_in(path)) for path in files_in(tmp_path)] == [int(recorded), 1]


def test_missing_directory_is_reported_until_it_can_be_made(tmp_path: Path) -> None:
    """Every poll raises the system's error; recording begins as soon as it can."""
    (tmp_path / "file").touch()
    recorder = Recorder(tmp_path / "file" / "x", max_bytes=2**20)
    for _ in range(2):
        with pytest.raises(NotADirectoryError):
            recorder.record("db", EXHAUSTED, at=NOW)
    (tmp_path / "file").unlink()
    recorder.record("db", EXHAUSTED, at=NOW)
    recorder.close()
    assert len(polls_in(*files_in(tmp_path / "file" / "x"))) == 1


@pytest.mark.parametrize("deleted", ["directory", "file"])
def test_deleted_segment_is_noticed_at_the_next_poll(tmp_path: Path, deleted: str) -> None:
    """This poll is lost with an error that names the file. The next poll makes the directory again."""
    directory = tmp_path / "recordings"
    recorder = Recorder(directory, max_bytes=2**20)
    recorder.record("db", EXHAUSTED, at=NOW)
    recorder.record("other", EXHAUSTED, at=NOW)
    if deleted == "directory":
        shutil.rmtree(directory)
    else:
        for path in files_in(directory):
            path.unlink()
    for server in ("db", "other"):
        with pytest.raises(FileNotFoundError, match=rf"deleted while it was being written: '{directory}/.*-{server}\."):
            recorder.record(server, EXHAUSTED, at=NOW + 1)
        recorder.record(server, EXHAUSTED, at=NOW + 2)
    recorder.close()
    assert [(poll.server, poll.taken_at) for poll in polls_in(*files_in(directory))] == [
        ("db", NOW + 2),
        ("other", NOW + 2),
    ]


def test_poll_that_no_replay_could_read(tmp_path: Path) -> None:
    """A line that is longer than replay reads is refused with EFBIG; smaller polls are recorded."""
    recorder = Recorder(tmp_path / "large", max_bytes=2**30)
    huge = replace(incompressible(0), own_user="x" * 16 * 2**20)
    with pytest.raises(OSError, match="more than 16 MiB") as refused:
        recorder.record("db", huge, at=NOW)
    assert refused.value.errno == errno.EFBIG
    recorder.record("db", EXHAUSTED, at=NOW + 2)
    recorder.close()
    assert len(polls_in(*files_in(tmp_path / "large"))) == 1


def test_poll_that_is_larger_than_all_the_room(tmp_path: Path) -> None:
    """It is refused with EFBIG; the segments stay, and smaller polls are recorded."""
    recorder = Recorder(tmp_path / "small", max_bytes=500)
    recorder.record("db", EXHAUSTED, at=NOW)
    with pytest.raises(OSError, match="more room") as refused:
        recorder.record("db", incompressible(1), at=NOW + 1)
    assert refused.value.errno == errno.EFBIG
    recorder.record("db", EXHAUSTED, at=NOW + 2)
    recorder.close()
    assert len(polls_in(*files_in(tmp_path / "small"))) == 2
