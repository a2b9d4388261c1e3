"""Programs at a terminal, which see one where they write and answer as they would to a person."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping
from typing import NamedTuple

from tests.support.programs import PROGRAM, environment

_ROWS = 24


class Shown(NamedTuple):
    """What a program that has ended wrote."""

    code: int
    #: As it came, control sequences included; standard output too, where that was the terminal.
    terminal: str
    #: Standard output, where that was a pipe.
    piped: str


def at_terminal(
    *arguments: str, columns: int = 80, pipe_output: bool = False, env: Mapping[str, str] | None = None
) -> Shown:
    """Run a command whose standard error, and standard output if it is not piped, is a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    variables = {**(environment() if env is None else env), "TERM": "xterm"}
    variables.pop("COLUMNS", None)
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipe_output else theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b""))
        piped = process.stdout.read() if process.stdout else b""
        code = process.wait(timeout=30)
    os.close(ours)
    return Shown(code, shown.decode(), piped.decode())


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(OSError):  # EIO: the last one who had the terminal open is gone
        return os.read(descriptor, 65536)
    return b""
