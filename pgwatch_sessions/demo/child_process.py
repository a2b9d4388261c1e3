"""Child processes and temporary folders that end with the block that asked for them, or with this whole process."""

import contextlib
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Isolated and without site-packages, it starts in 20 ms, and no environment variable can break it.
_SUPERVISOR = (sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")))


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporaryFolder:
    """A folder that is removed when this process and all child processes that use it have ended."""

    path: Path
    #: A process that inherits this descriptor delays the removal until it ends.
    lease: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProcess:
    """A command that runs under a supervisor process."""

    #: Of the command, not of the supervisor.
    pid: int
    supervisor: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        """Return the command's exit code (128 + n after signal n), None while it runs."""
        return self.supervisor.poll()

    def wait(self, timeout: float) -> int:
        """Wait until the command ends by itself and return its exit code; TimeoutExpired after so many seconds."""
        return self.supervisor.wait(timeout)


@contextlib.contextmanager
def child_process(
    command: Sequence[str | Path],
    *,
    folder: TemporaryFolder | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    patience: float = 5.0,
    user: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[ChildProcess]:
    """Run a command until the block ends; OSError if it cannot be started.

    At the end the command and everything that it started get the stop signal and, after `patience` seconds, SIGKILL.
    Root may run it as another `user`. Its output is appended to `log`; without one, it goes where ours goes.
    """
    options = [f"--stop-signal={stop_signal:d}", f"--patience={patience}"]
    options += [f"--user={user}"] if user else []
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        supervisor = subprocess.Popen(  # noqa: S603 - the command is the caller's
            [*_SUPERVISOR, *options, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            pass_fds=(folder.lease,) if folder else (),
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        yield stack.enter_context(_supervised(supervisor, str(command[0])))


@contextlib.contextmanager
def temporary_folder(prefix: str = "pgwatch-") -> Iterator[TemporaryFolder]:
    """Make a folder in the system's temporary folder that only this user can read.

    Its name is short because the path of a socket can have about 100 bytes.
    """
    path = Path(tempfile.gettempdir(), prefix + secrets.token_hex(4))
    supervisor = subprocess.Popen(  # noqa: S603 - our own program
        [*_SUPERVISOR, f"--remove={path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    # The supervisor runs before the folder exists, so that there is always a process that will remove it.
    with _supervised(supervisor, "the supervisor of a temporary folder"):
        path.mkdir(mode=0o700)
        assert supervisor.stdin  # noqa: S101 - it is a pipe
        yield TemporaryFolder(path=path, lease=supervisor.stdin.fileno())


@contextlib.contextmanager
def _supervised(supervisor: subprocess.Popen[bytes], name: str) -> Iterator[ChildProcess]:
    """Yield once the supervisor has reported the pid of its command; at the end, stop both."""
    assert supervisor.stdin  # noqa: S101  # these are pipes
    assert supervisor.stdout  # noqa: S101  # as above
    try:
        with supervisor.stdout:
            pid = supervisor.stdout.readline()
        if not pid:
            raise OSError(f"{name} could not be started (exit code {supervisor.wait()})")
        yield ChildProcess(pid=int(pid), supervisor=supervisor)
    finally:
        # Not Popen's own __exit__: after a KeyboardInterrupt that would not wait for the end.
        supervisor.stdin.close()
        supervisor.wait()
