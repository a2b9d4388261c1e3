"""How the demonstration speaks: plain lines, with times, coloured where a person reads them on a terminal."""

import os
import sys
import textwrap
import time
from enum import Enum

_COLUMNS = 100
_AFTER_TIME = " " * 10


class Tone(Enum):
    """What a line means, as a terminal's colour."""

    PLAIN = ""
    TITLE = "\x1b[1m"
    BAD = "\x1b[31m"
    GOOD = "\x1b[32m"
    FAINT = "\x1b[2m"


def paragraph(text: str) -> None:
    """Say some sentences, broken into lines."""
    say(textwrap.fill(text, _COLUMNS))


def at(moment: float, text: str, tone: Tone = Tone.PLAIN) -> None:
    """Say what happened at a time, given in seconds since the epoch."""
    stamp = f"{clock(moment)}  "
    say(textwrap.fill(text, _COLUMNS, initial_indent=stamp, subsequent_indent=_AFTER_TIME), tone)


def clock(moment: float) -> str:
    """Return the time of day."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def say(text: str, tone: Tone = Tone.PLAIN) -> None:
    """Write lines as they are, at once."""
    stream = sys.stdout
    if stream is None:  # whoever started us has closed it
        return
    coloured = tone is not Tone.PLAIN and stream.isatty() and not os.environ.get("NO_COLOR")
    stream.write(f"{tone.value}{text}\x1b[0m\n" if coloured else f"{text}\n")
    stream.flush()
