"""For people at a terminal, and for what they pipe it into: colours, tables, progress.

Written here and not taken from rich, because structlog loads rich wherever it is installed: the daemon would pay for
it with 5 MiB of memory.
"""

import os
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Self, TextIO
from unicodedata import combining, east_asian_width

from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.wording.labels import printable

#: Between the columns of a table.
_GAP = "  "
#: Progress is shown no more often than the eye takes it in, in seconds.
_REFRESH = 0.1
_BAR = 30
#: Below this many columns a paragraph cannot be read.
_NARROWEST = 40


class Colour(StrEnum):
    """The codes of SGR (ECMA-48)."""

    BOLD = "1"
    FAINT = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"


Paint = Callable[[str, Colour], str]

SEVERITY_COLOURS = {Severity.NOTICE: Colour.BOLD, Severity.WARNING: Colour.YELLOW, Severity.CRITICAL: Colour.RED}


def paint_for(stream: TextIO) -> Paint:
    """Return a function that colours text, on a terminal where nobody objects (no-color.org)."""
    if stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return lambda text, colour: f"\x1b[{colour}m{text}\x1b[0m" if text else text
    return lambda text, _: text


def folded(text: str, stream: TextIO, *, indent: str) -> Iterator[str]:
    """Yield a paragraph's lines, indented: as wide as the terminal, or one line where there is none."""
    if not stream.isatty():
        yield indent + text
        return
    width = max(shutil.get_terminal_size().columns - 1, len(indent) + _NARROWEST)
    yield from textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, the header first: columns as wide as they need, never wrapped, never cut."""
    widths = [max(map(_columns, column)) for column in zip(header, *rows, strict=True)]
    right = [all(map(_is_number, column)) for column in zip(*rows, strict=True)] or [False] * len(header)
    for row in (header, *rows):
        cells = [
            " " * (width - _columns(cell)) + cell if is_right else cell + " " * (width - _columns(cell))
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        yield _GAP.join(cells).rstrip()


def _columns(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def _is_number(cell: str) -> bool:
    return not cell or cell.replace(".", "", 1).isdecimal()


def bar(done: float) -> str:
    """Draw how much of 1 is done."""
    full = round(_BAR * min(max(done, 0.0), 1.0))
    return f"[{'#' * full}{'-' * (_BAR - full)}] {100 * min(done, 1.0):3.0f} %"


class Progress:
    """One line that says how far something is, at the end of a terminal; nothing anywhere else."""

    def __init__(self, stream: TextIO) -> None:
        """Show nothing yet."""
        self._stream = stream
        self._on_terminal = stream.isatty()
        self._shown_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Show this text, unless another was shown just now."""
        now = time.monotonic()
        if not self._on_terminal or (self._shown_at is not None and now - self._shown_at < _REFRESH):
            return
        self._shown_at = now
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{printable(text)[:width]}")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for a line of something else."""
        if self._shown_at is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown_at = None
