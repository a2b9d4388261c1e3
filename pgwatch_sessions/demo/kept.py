"""Commands and folders that end with the block that asked for them, or with this whole process."""

import contextlib
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Isolated and without site-packages: it starts in 20 ms, and no variable of the environment can break it.
KEEPER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A temporary folder, removed when this process and all commands kept in it have ended."""

    path: Path
    #: An inherited copy of this descriptor postpones the removal.
    lease: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A command running under a keeper."""

    #: The command's own process, not the keeper's.
    pid: int
    keeper: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        """Return the command's exit code (128 + n after signal n), None while it runs."""
        return self.keeper.poll()

    def wait(self, timeout: float) -> int:
        """Return the exit code once the command has ended by itself; TimeoutExpired after so many seconds."""
        return self.keeper.wait(timeout)


@contextlib.contextmanager
def kept(
    command: Sequence[str | Path],
    *,
    folder: Folder | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    patience: float = 5.0,
    user: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[Kept]:
    """Run a command until the block ends; OSError if it cannot be started.

    The end is the stop signal and, after `patience` seconds, SIGKILL, for everything the command started
    too. `user` is whom to become (as root). Output is appended to `log`, or goes where ours goes.
    """
    options = [f"--stop-signal={stop_signal:d}", f"--patience={patience}"]
    options += [f"--user={user}"] if user else []
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        keeper = subprocess.Popen(  # noqa: S603 - the command is the caller's
            [*KEEPER, *options, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            pass_fds=(folder.lease,) if folder else (),
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        yield stack.enter_context(_reported(keeper, str(command[0])))


@contextlib.contextmanager
def temporary_folder(prefix: str = "pgwatch-") -> Iterator[Folder]:
    """Make a folder for this user alone in the system's temporary folder.

    The name is short: a socket's path has room for about 100 bytes.
    """
    path = Path(tempfile.gettempdir(), prefix + secrets.token_hex(4))
    keeper = subprocess.Popen(  # noqa: S603 - our own program
        [*KEEPER, f"--remove={path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    # The keeper is there before the folder is: at no moment would nobody remove it.
    with _reported(keeper, "the keeper of a temporary folder"):
        path.mkdir(mode=0o700)
        assert keeper.stdin  # noqa: S101 - it is a pipe
        yield Folder(path=path, lease=keeper.stdin.fileno())


@contextlib.contextmanager
def _reported(keeper: subprocess.Popen[bytes], what: str) -> Iterator[Kept]:
    """Yield once the keeper has said which process it keeps; then end both."""
    assert keeper.stdin  # noqa: S101 - these are pipes
    assert keeper.stdout  # noqa: S101
    try:
        with keeper.stdout:
            reported = keeper.stdout.readline()
        if not reported:
            raise OSError(f"{what} could not be started (exit code {keeper.wait()})")
        yield Kept(pid=int(reported), keeper=keeper)
    finally:
        # Not Popen's own __exit__: after a KeyboardInterrupt that would not wait for the end.
        keeper.stdin.close()
        keeper.wait()
