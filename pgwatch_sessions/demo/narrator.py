"""What the demo prints: paragraphs that explain, and lines with the time of day for what happens."""

import sys
import textwrap
import time

from pgwatch_sessions.core.events import Event, LeakChanged
from pgwatch_sessions.terminal import Colour, laid_out, paint_for
from pgwatch_sessions.wording.event_lines import event_line, is_other_finding, is_said_by_another

_COLUMNS = 100
_AFTER_TIME = " " * 10
_AFTER_LABEL = " " * 22


def say(text: str, colour: Colour | None = None) -> None:
    """Print lines as they are."""
    if sys.stdout is not None:  # None if our parent process has closed it
        sys.stdout.write((paint_for(sys.stdout)(text, colour) if colour else text) + "\n")
        sys.stdout.flush()


def explain(text: str) -> None:
    """Print a paragraph, broken into lines."""
    say(textwrap.fill(text, _COLUMNS))


def report(text: str, colour: Colour | None = None) -> None:
    """Print what has just happened, with the time."""
    stamp = f"{time.strftime('%H:%M:%S')}  "
    say(textwrap.fill(text, _COLUMNS, initial_indent=stamp, subsequent_indent=_AFTER_TIME), colour)


def report_event(event: Event) -> None:
    """Print the line of an event as the daemon does; of changes of a finding, only those of more than its numbers."""
    match event:
        case LeakChanged(finding, before) if not is_other_finding(finding, before):
            return
    if sys.stdout is not None and not is_said_by_another(event):
        line = event_line(event, at=time.time())
        first, *more = textwrap.wrap(line.text, _COLUMNS - len(_AFTER_LABEL))
        say(laid_out(line._replace(text=first), time.strftime("%H:%M:%S"), paint_for(sys.stdout)))
        for text in more:
            say(_AFTER_LABEL + text)
