"""Child processes and temporary folders end with the process that asked for them, in whatever way it ends."""

import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgwatch_sessions.demo.child_process import child_process, temporary_folder
from pgwatch_sessions.demo.supervisor import descendants
from tests.support.leftovers import alive
from tests.support.waiting import until

#: A shell, a child of it, and one that left its process group.
FAMILY = ["sh", "-c", "sleep 600 & setsid sleep 600 & wait"]
#: A family that ignores SIGTERM.
STUBBORN = ["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"]


def family_of(pid: int) -> list[int]:
    """Return the command and its two children once they run."""
    children = until(lambda: len(found := descendants(pid)) == 2 and found)
    return [pid, *(children or ())]


def test_whole_family_ends_with_the_block() -> None:
    """At the end of the block, SIGTERM ends the command and everything that it started."""
    with child_process(FAMILY) as command:
        family = family_of(command.pid)
        assert all(map(alive, family))
        assert command.poll() is None
    assert not any(map(alive, family))
    assert command.poll() == 128 + signal.SIGTERM
    assert not alive(command.supervisor.pid)


def test_exception_in_the_block_ends_the_command() -> None:
    """A block that raises, even KeyboardInterrupt, ends its command too."""
    with pytest.raises(KeyboardInterrupt), child_process(FAMILY) as command:
        raise KeyboardInterrupt
    assert not alive(command.pid)


def test_stubborn_command_is_killed_after_patience() -> None:
    """A command that ignores its stop signal is killed."""
    with child_process(STUBBORN, patience=0.1) as command:
        until(lambda: descendants(command.pid))
        begun = time.monotonic()
    assert 0.1 <= time.monotonic() - begun < 4
    assert command.poll() == 128 + signal.SIGKILL


def test_suspended_command_still_gets_the_stop_signal() -> None:
    """A command that was suspended with SIGSTOP gets its stop signal and ends."""
    with child_process(FAMILY) as command:
        for pid in family_of(command.pid):
            os.kill(pid, signal.SIGSTOP)
    assert command.poll() == 128 + signal.SIGTERM


@pytest.mark.parametrize(("end", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("sleep 600 & exit 0", 0)])
def test_exit_code_of_a_command_that_ends_by_itself(end: str, code: int) -> None:
    """Its exit code is returned, and the processes that it left running are ended."""
    with child_process(["sh", "-c", end]) as command:
        assert command.wait(timeout=5) == code
        assert command.poll() == code


def test_command_that_cannot_be_started() -> None:
    """A command that does not exist is an error that names it."""
    with pytest.raises(OSError, match="no-such-program could not be started"), child_process(["no-such-program"]):
        pass


def test_output_environment_and_folder(tmp_path: Path) -> None:
    """The command has the given environment and folder and an empty input; its output is appended to the log."""
    log = tmp_path / "log"
    log.write_text("before\n")
    with child_process(["sh", "-c", "pwd; echo $A >&2; cat"], cwd=tmp_path, env={"A": "b"}, log=log) as command:
        command.wait(timeout=5)
    assert log.read_text() == f"before\n{tmp_path}\nb\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_user(tmp_path: Path) -> None:
    """Root can run the command as another user, in the group of that user only."""
    log = tmp_path / "log"
    with child_process(["sh", "-c", "id -u; id -G"], user="nobody", cwd=Path("/"), log=log) as command:
        assert command.wait(timeout=5) == 0
    nobody = pwd.getpwnam("nobody")
    assert log.read_text().split() == [str(nobody.pw_uid), str(nobody.pw_gid)]


def test_command_ends_if_its_supervisor_is_killed() -> None:
    """The command ends even if its supervisor is killed."""
    with child_process(["sleep", "600"]) as command:
        command.supervisor.kill()
        until(lambda: not alive(command.pid))


def test_terminated_supervisor_stops_the_command() -> None:
    """If a service manager sends SIGTERM to every process, the command is still stopped in order."""
    with child_process(FAMILY) as command:
        family = family_of(command.pid)
        command.supervisor.terminate()
        assert command.wait(timeout=5) == 128 + signal.SIGTERM
        assert not any(map(alive, family))


PARENT = """
import sys, time
from pgwatch_sessions.demo.child_process import child_process, temporary_folder
with temporary_folder() as folder, child_process(sys.argv[1:], folder=folder, cwd=folder.path) as command:
    print(command.pid, command.supervisor.pid, folder.path, flush=True)
    time.sleep(600)
"""


def test_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    """After SIGKILL of the parent, the command gets its stop signal, can still use its folder, and then both end."""
    proof = tmp_path / "proof"
    command = f"trap 'sleep 0.3; echo ended > here; cp here {proof}; exit' TERM; sleep 600 & setsid sleep 600 & wait"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, "sh", "-c", command], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid, supervisor, folder = parent.stdout.readline().split()
        everybody = [*family_of(int(pid)), int(supervisor)]
        parent.kill()
    until(lambda: not any(map(alive, everybody)))
    until(lambda: not Path(folder).exists())
    assert proof.read_text() == "ended\n"


def test_folder_ends_with_the_block() -> None:
    """A temporary folder is private and is removed with all its contents."""
    with temporary_folder() as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        (folder.path / "deep" / "deeper").mkdir(parents=True)
        (folder.path / "deep" / "file").write_text("x")
    assert not folder.path.exists()
