"""Output for a terminal: colours, tables and progress. A pipe or a file gets none of the control characters.

rich would do this too, but structlog imports rich if it is installed, which costs the daemon 5 MiB of memory.
"""

import os
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Self, TextIO
from unicodedata import combining, east_asian_width

from pgwatch_sessions.wording.labels import printable
from pgwatch_sessions.wording.lines import SEVERITY_TONES, Line, Tone

#: Between the columns of a table.
_GAP = "  "
#: As long as `recovering`.
_LABEL_COLUMNS = 10
#: The shortest time between two updates of the progress line, in seconds.
_REFRESH = 0.1
_BAR_WIDTH = 30
#: A paragraph has at least this many columns, even on a narrower terminal.
_MIN_COLUMNS = 40


class Colour(StrEnum):
    """The codes of SGR (ECMA-48)."""

    BOLD = "1"
    FAINT = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"


Paint = Callable[[str, Colour], str]

#: A text of another tone keeps its colour.
TONE_COLOURS = {Tone.GOOD: Colour.GREEN, Tone.NOTE: Colour.BOLD, Tone.WARN: Colour.YELLOW, Tone.BAD: Colour.RED}
SEVERITY_COLOURS = {severity: TONE_COLOURS[tone] for severity, tone in SEVERITY_TONES.items()}


def paint_for(stream: TextIO) -> Paint:
    """Return a function that colours text if the stream is a terminal and NO_COLOR is not set (no-color.org)."""
    if stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return lambda text, colour: f"\x1b[{colour}m{text}\x1b[0m" if text else text
    return lambda text, _: text


def laid_out(line: Line, when: str, paint: Paint, *, server: str = "") -> str:
    """Return a line of a log or a timeline: `12:04:05  shop-db  critical    orders (shop, app): 3 sessions …`."""
    label = f"{printable(line.label):<{_LABEL_COLUMNS}}"
    return _GAP.join(
        (
            paint(when, Colour.FAINT),
            *([printable(server)] if server else ()),
            paint(label, TONE_COLOURS[line.tone]) if line.tone in TONE_COLOURS else label,
            printable(line.text),
        )
    )


def folded(text: str, stream: TextIO, *, indent: str) -> Iterator[str]:
    """Yield the indented lines of a paragraph: as wide as the terminal, or one line if there is no terminal."""
    if not stream.isatty():
        yield indent + text
        return
    width = max(shutil.get_terminal_size().columns - 1, len(indent) + _MIN_COLUMNS)
    yield from textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, the header first. Cells are never wrapped or cut; numbers are aligned right."""
    widths = [max(map(columns_of, column)) for column in zip(header, *rows, strict=True)]
    numeric = [all(map(_is_number, column)) for column in zip(*rows, strict=True)] or [False] * len(header)
    for row in (header, *rows):
        cells = [
            " " * (width - columns_of(cell)) + cell if is_numeric else cell + " " * (width - columns_of(cell))
            for cell, width, is_numeric in zip(row, widths, numeric, strict=True)
        ]
        yield _GAP.join(cells).rstrip()


def columns_of(text: str) -> int:
    """Return the width of the text on a terminal. Wide East Asian characters take two columns."""
    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def _is_number(cell: str) -> bool:
    return not cell or cell.replace(".", "", 1).isdecimal()


def bar(done: float) -> str:
    """Return a progress bar; `done` goes from 0 to 1."""
    full = round(_BAR_WIDTH * min(max(done, 0.0), 1.0))
    return f"[{'#' * full}{'-' * (_BAR_WIDTH - full)}] {100 * min(done, 1.0):3.0f} %"


class Progress:
    """The last line of a terminal, which shows progress and is removed at the end. Other streams get nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on_terminal = stream.isatty()
        self._shown_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Show this text, unless the line was updated less than 0.1 s ago."""
        now = time.monotonic()
        if not self._on_terminal or (self._shown_at is not None and now - self._shown_at < _REFRESH):
            return
        self._shown_at = now
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{printable(text)[:width]}")
        self._stream.flush()

    def clear(self) -> None:
        """Remove the line, so that other output can be written."""
        if self._shown_at is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown_at = None
