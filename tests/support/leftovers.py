"""Finding processes that should have ended."""

import contextlib
import os
from pathlib import Path


def alive(pid: int) -> bool:
    """Tell whether the process runs; one that ended and was not reaped yet (by init, say) does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that run in the folder, name it, or have it as TMPDIR."""
    mark = os.fsencode(folder)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            command = (process / "cmdline").read_bytes()
            variables = (process / "environ").read_bytes()
            # PostgreSQL's processes overwrite both their arguments and their environment, but stay in the folder.
            place = os.fsencode((process / "cwd").readlink())
            if mark in command or b"TMPDIR=" + mark in variables or place.startswith(mark):
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
