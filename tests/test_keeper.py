"""Kept commands and folders end with whoever asked for them, however that ends."""

import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgwatch_sessions.demo.keeper import descendants
from pgwatch_sessions.demo.kept import kept, temporary_folder
from tests.support.leftovers import alive
from tests.support.waiting import until

#: A shell, a child of it, and one that left its process group.
FAMILY = ["sh", "-c", "sleep 600 & setsid sleep 600 & wait"]
#: The same, deaf to SIGTERM.
STUBBORN = ["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"]


def family_of(pid: int) -> list[int]:
    """Return the command and its two children once they are there."""
    children = until(lambda: len(found := descendants(pid)) == 2 and found)
    return [pid, *(children or ())]


def test_whole_family_ends_with_the_block() -> None:
    """The end of the block ends the command and all it started; the code is that of SIGTERM."""
    with kept(FAMILY) as command:
        family = family_of(command.pid)
        assert all(map(alive, family))
        assert command.poll() is None
    assert not any(map(alive, family))
    assert command.poll() == 128 + signal.SIGTERM
    assert not alive(command.keeper.pid)


def test_exception_in_the_block_ends_the_command() -> None:
    """A block that raises ends its command too, KeyboardInterrupt included."""
    with pytest.raises(KeyboardInterrupt), kept(FAMILY) as command:
        raise KeyboardInterrupt
    assert not alive(command.pid)


def test_deaf_command_is_killed_after_patience() -> None:
    """A command that ignores its stop signal is killed."""
    with kept(STUBBORN, patience=0.1) as command:
        until(lambda: descendants(command.pid))
        begun = time.monotonic()
    assert 0.1 <= time.monotonic() - begun < 4
    assert command.poll() == 128 + signal.SIGKILL


def test_stopped_command_still_ends_in_its_own_way() -> None:
    """SIGSTOP does not keep the stop signal from a command."""
    with kept(FAMILY) as command:
        for pid in family_of(command.pid):
            os.kill(pid, signal.SIGSTOP)
    assert command.poll() == 128 + signal.SIGTERM


@pytest.mark.parametrize(("end", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("sleep 600 & exit 0", 0)])
def test_own_end_of_the_command_is_seen(end: str, code: int) -> None:
    """A command that ends by itself shows its code, and takes what it left running with it."""
    with kept(["sh", "-c", end]) as command:
        assert command.wait(timeout=5) == code
        assert command.poll() == code


def test_command_that_cannot_be_started() -> None:
    """A command that is not there is an error that names it."""
    with pytest.raises(OSError, match="no-such-program could not be started"), kept(["no-such-program"]):
        pass


def test_output_environment_and_folder_are_the_callers(tmp_path: Path) -> None:
    """The command has the environment and folder asked for, an empty input, and writes to the log."""
    log = tmp_path / "log"
    log.write_text("before\n")
    with kept(["sh", "-c", "pwd; echo $A >&2; cat"], cwd=tmp_path, env={"A": "b"}, log=log) as command:
        command.wait(timeout=5)
    assert log.read_text() == f"before\n{tmp_path}\nb\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_user(tmp_path: Path) -> None:
    """Root can have the command run as another user, in that user's group alone."""
    log = tmp_path / "log"
    with kept(["sh", "-c", "id -u; id -G"], user="nobody", cwd=Path("/"), log=log) as command:
        assert command.wait(timeout=5) == 0
    nobody = pwd.getpwnam("nobody")
    assert log.read_text().split() == [str(nobody.pw_uid), str(nobody.pw_gid)]


def test_killed_keeper_takes_the_command_with_it() -> None:
    """Not even killing the keeper leaves the command running."""
    with kept(["sleep", "600"]) as command:
        command.keeper.kill()
        until(lambda: not alive(command.pid))


def test_terminated_keeper_stops_the_command() -> None:
    """A SIGTERM to every process, as a service manager sends it, ends the command once, in its own way."""
    with kept(FAMILY) as command:
        family = family_of(command.pid)
        command.keeper.terminate()
        assert command.wait(timeout=5) == 128 + signal.SIGTERM
        assert not any(map(alive, family))


PARENT = """
import sys, time
from pgwatch_sessions.demo.kept import kept, temporary_folder
with temporary_folder() as folder, kept(sys.argv[1:], folder=folder, cwd=folder.path) as command:
    print(command.pid, command.keeper.pid, folder.path, flush=True)
    time.sleep(600)
"""


def test_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    """After SIGKILL of the parent the command is stopped, may still use its folder, and then that goes too."""
    proof = tmp_path / "proof"
    command = f"trap 'sleep 0.3; echo ended > here; cp here {proof}; exit' TERM; sleep 600 & setsid sleep 600 & wait"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, "sh", "-c", command], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid, keeper, folder = parent.stdout.readline().split()
        everybody = [*family_of(int(pid)), int(keeper)]
        parent.kill()
    until(lambda: not any(map(alive, everybody)))
    until(lambda: not Path(folder).exists())
    assert proof.read_text() == "ended\n"


def test_folder_ends_with_the_block() -> None:
    """A temporary folder is private, and is removed with all that is in it."""
    with temporary_folder() as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        (folder.path / "deep" / "deeper").mkdir(parents=True)
        (folder.path / "deep" / "file").write_text("x")
    assert not folder.path.exists()
