"""A program on a terminal that a test reads like a person: its screen, and keys."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyte

from tests.support.programs import PROGRAM, environment
from tests.support.waiting import until


@dataclass
class Terminal:
    """A terminal with a program on it."""

    process: subprocess.Popen[bytes]
    #: Our end.
    descriptor: int
    screen: pyte.Screen
    stream: pyte.ByteStream
    #: All that the program has written so far.
    written: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        """Return the screen as it is now."""
        self._read()
        return "\n".join(row.rstrip() for row in self.screen.display)

    def until_shown(self, condition: Callable[[str], bool], *, within: float = 20.0) -> str:
        """Return the first screen of which the condition holds."""
        until(lambda: condition(self.text()) or self._ended(), within=within)
        shown = self.text()
        assert condition(shown), shown
        return shown

    def press(self, keys: str) -> None:
        """Type these characters."""
        os.write(self.descriptor, keys.encode())

    def end(self) -> int:
        """Wait for the program's end; return its exit code."""
        until(self._ended)
        self._read()
        return self.process.returncode

    def modes(self) -> list[object]:
        """Return the terminal's settings: whether it echoes, waits for whole lines, and so on."""
        return list(termios.tcgetattr(self.descriptor))

    def _ended(self) -> bool:
        self._read()
        return self.process.poll() is not None

    def _read(self) -> None:
        while select.select([self.descriptor], [], [], 0.01)[0]:
            try:
                data = os.read(self.descriptor, 65536)
            except OSError:  # EIO: the program is gone
                return
            self.written += data
            self.stream.feed(data)


@contextlib.contextmanager
def on_terminal(
    *arguments: str, columns: int = 80, rows: int = 24, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run a command on a terminal of this size until the block ends."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    variables = {**environment(), "TERM": "xterm", "LC_ALL": "C.UTF-8", **(env or {})}
    for name in ("COLUMNS", "LINES", "COLORTERM"):
        variables.pop(name, None)
    screen = pyte.Screen(columns, rows)
    with subprocess.Popen(
        [*PROGRAM, *arguments], env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        try:
            yield Terminal(process=process, descriptor=ours, screen=screen, stream=pyte.ByteStream(screen))
        finally:
            process.kill()
            os.close(theirs)
            os.close(ours)
