"""What the demo prints: paragraphs that explain, and lines with the time of day for what happens."""

import sys
import textwrap
import time

from pgwatch_sessions.core.events import (
    DiagnosisChanged,
    Event,
    LeakChanged,
    LeakClosed,
    LeakOpened,
    ServerDown,
    ServerUp,
)
from pgwatch_sessions.core.findings import Verdict
from pgwatch_sessions.terminal import SEVERITY_COLOURS, Colour, paint_for
from pgwatch_sessions.wording.amounts import counted
from pgwatch_sessions.wording.failures import failure_text
from pgwatch_sessions.wording.labels import client_name
from pgwatch_sessions.wording.sentences import diagnosis_change_text, finding_text

_COLUMNS = 100
_AFTER_TIME = " " * 10


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
    """Print an event of the daemon; of changes of a finding, only those of its severity."""
    match event:
        case LeakChanged(finding, before) if finding.severity is before.severity:
            pass
        case LeakOpened(finding) | LeakChanged(finding):
            text = finding_text(finding, at=time.time())
            report(
                f"{finding.severity:<8}  {client_name(finding.key.client)}: {text}", SEVERITY_COLOURS[finding.severity]
            )
        case LeakClosed(finding):
            sessions = counted(finding.total, "session")
            report(f"closed    {client_name(finding.key.client)}: {sessions} at {finding.key.site}", Colour.GREEN)
        case DiagnosisChanged(diagnosis, before) if diagnosis.client:
            colour = Colour.GREEN if diagnosis.verdict is Verdict.OK else Colour.RED
            report(diagnosis_change_text(diagnosis, before), colour)
        case ServerDown(failure):
            report(f"cannot poll the server: {failure_text(failure)}", Colour.RED)
        case ServerUp():
            report("the daemon is connected and polls the server", Colour.GREEN)
