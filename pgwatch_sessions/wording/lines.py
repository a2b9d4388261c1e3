"""A line for people: a label, a sentence, and how much it matters."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding, FindingState, Severity


class Tone(StrEnum):
    """How much a text matters. It decides the text's colour, and the level of a line in the log."""

    GOOD = "good"
    NOTE = "note"
    WARN = "warn"
    BAD = "bad"
    #: Beside the point.
    SOFT = "soft"
    PLAIN = ""


class Line(NamedTuple):
    """What a log, a terminal or a timeline says about one event."""

    #: One word: the severity of a finding, or what has happened, for example `closed`.
    label: str
    tone: Tone
    #: One sentence, which can be read without the label.
    text: str


SEVERITY_TONES: Mapping[Severity, Tone] = {
    Severity.NOTICE: Tone.NOTE,
    Severity.WARNING: Tone.WARN,
    Severity.CRITICAL: Tone.BAD,
}


def finding_label(finding: Finding) -> str:
    """Return the severity of a finding, `unseen` if its sessions are hidden, `recovering` if it has none any more."""
    return str(finding.severity if finding.state is FindingState.OPEN else finding.state)


def finding_tone(finding: Finding) -> Tone:
    """Return the tone of a finding. Without sessions it alarms nobody, however severe it was."""
    return Tone.NOTE if finding.state is FindingState.RECOVERING else SEVERITY_TONES[finding.severity]
