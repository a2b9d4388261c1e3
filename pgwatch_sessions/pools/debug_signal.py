"""Lets `python -m pgwatch_sessions.pools PID` ask a running process for its pools and borrowers.

The process calls `report_on_signal()`. From then on it answers a signal with a file, in a folder that only its user may
read. Another file there says which process answers which signal: to any other process, the signal could be the end.
"""

import atexit
import json
import os
import signal
import stat
import subprocess
import tempfile
import threading
from pathlib import Path
from types import FrameType

from pgwatch_sessions.pools.ledger import logger
from pgwatch_sessions.pools.report import report


def report_on_signal(number: int = signal.SIGUSR2) -> None:
    """Answer that signal from now on. Call it in the main thread; the children of a fork answer, too.

    RuntimeError if the program handles the signal already, as gunicorn's master does SIGUSR2.
    """
    before = signal.getsignal(number)
    if before is _handle:
        return
    if before not in {signal.SIG_DFL, signal.SIG_IGN}:
        raise RuntimeError(f"{signal.Signals(number).name} is handled already: give report_on_signal() another one")
    signal.signal(number, _handle)
    _announce(number)
    os.register_at_fork(after_in_child=lambda: _announce(number))


def folder() -> Path:
    """Return the folder for files of this user's processes. RuntimeError if it is somebody else's."""
    path = Path(tempfile.gettempdir(), f"pgwatch-sessions-pools-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RuntimeError(f"{path} is not a folder that only this user may read: remove it")
    return path


def announcement(pid: int) -> Path:
    """Return the file that says which signal a process answers."""
    return folder() / f"{pid}.signal"


def answer(pid: int) -> Path:
    """Return the file with which a process answers."""
    return folder() / f"{pid}.json"


def started(pid: int) -> str | None:
    """Return what tells a process from another one that had the same number; None if there is none now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    command = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # only a number varies
    return printed.stdout.strip() or None


def _announce(number: int) -> None:
    pid = os.getpid()
    try:
        path = announcement(pid)
        path.write_text(json.dumps({"signal": int(number), "started": started(pid)}), encoding="utf-8")
    except (OSError, RuntimeError) as error:
        logger.warning("no report of pools on a signal: %s", error)
        return
    atexit.register(_withdraw, path, pid)


def _withdraw(path: Path, pid: int) -> None:
    if os.getpid() == pid:
        path.unlink(missing_ok=True)


def _handle(_: int, __: FrameType | None) -> None:
    """Answer in a thread: this runs between any two instructions, perhaps while a lock is held."""
    threading.Thread(target=_write, name="pgwatch_sessions.pools report", daemon=True).start()


def _write() -> None:
    path = answer(os.getpid())
    try:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(report()), encoding="utf-8")
        new.replace(path)
    except Exception:  # noqa: BLE001  # the application goes on
        logger.exception("no report of pools: error in pgwatch_sessions.pools")
