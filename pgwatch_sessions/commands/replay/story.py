"""A replay as it goes on, for people: what was found when, how it changed, and when it was over."""

from collections.abc import Iterator

from pgwatch_sessions.commands.replay.ledger import PAGING, CaseId, case_id
from pgwatch_sessions.commands.replay.steps import (
    ClockSteppedBack,
    Happening,
    PollsMissing,
    ServerRestarted,
    Step,
    happening_fields,
)
from pgwatch_sessions.core.events import DiagnosisChanged, LeakChanged, LeakClosed, LeakOpened, ServerDown, ServerUp
from pgwatch_sessions.terminal import SEVERITY_COLOURS, Colour, Paint
from pgwatch_sessions.wording.amounts import counted, duration, moment
from pgwatch_sessions.wording.failures import failure_text
from pgwatch_sessions.wording.labels import client_name, printable
from pgwatch_sessions.wording.sentences import diagnosis_text, finding_text

#: While its severity stays, a finding is told of again when it has so many times the sessions.
_NOTABLE = 2


class Story:
    """Tells what is worth a line, and remembers what it has told."""

    def __init__(self, paint: Paint) -> None:
        """Nothing told yet."""
        self._paint = paint
        #: With how many sessions each open finding was told of last.
        self._reported_with: dict[CaseId, int] = {}

    def lines(self, step: Step) -> Iterator[str]:
        """Yield what one poll led to, a line each."""
        for happening in step.happenings:
            text = self._text(happening, step)
            if text:
                when = self._paint(moment(step.at), Colour.FAINT)
                yield f"{when}  {printable(step.state.server)}  {text}"

    def _text(self, happening: Happening, step: Step) -> str:
        match happening:
            case LeakOpened() | LeakChanged() | LeakClosed():
                return self._of_finding(happening, step)
            case DiagnosisChanged(diagnosis, before):
                who = client_name(diagnosis.client) if diagnosis.client else "the server"
                return f"diagnosis of {who}: {diagnosis_text(diagnosis)}{f', was {before}' if before else ''}"
            case ServerUp():
                return "can be seen"
            case _:
                return self._paint(_disturbance(happening), Colour.YELLOW)

    def _of_finding(self, event: LeakOpened | LeakChanged | LeakClosed, step: Step) -> str:
        finding, before = event.finding, event.before if isinstance(event, LeakChanged) else None
        identity = case_id(step.state.server, finding)
        if isinstance(event, LeakClosed):
            self._reported_with.pop(identity, None)
            had = f"{counted(finding.total, 'session')} in {duration(step.at - finding.since)}"
            site = printable(finding.key.site)
            return self._paint(f"closed    {client_name(finding.key.client)}: {had} at {site}", Colour.GREEN)
        same = before is not None and (before.key, before.severity) == (finding.key, finding.severity)
        if same and len(finding.sessions) < _NOTABLE * self._reported_with.get(identity, 0):
            return ""
        self._reported_with[identity] = len(finding.sessions)
        worse = before is None or finding.severity.rank > before.severity.rank
        pages = worse and finding.severity.rank >= PAGING.rank
        severity = self._paint(f"{finding.severity:<8}", SEVERITY_COLOURS[finding.severity])
        text = finding_text(finding, at=step.at)
        return f"{severity}  {client_name(finding.key.client)}: {text}{'; would have paged' if pages else ''}"


def _disturbance(happening: Happening) -> str:
    match happening:
        case ServerDown(failure):
            return f"cannot be seen: {failure_text(failure)}"
        case PollsMissing(seconds):
            return f"no look for {duration(seconds)}"
        case ClockSteppedBack(seconds):
            return f"the clock stepped back by {duration(seconds)}"
        case ServerRestarted():
            return "the server was restarted"
        case _:
            name, fields = happening_fields(happening)
            return printable(f"{name.replace('_', ' ')}: {', '.join(f'{key} {said}' for key, said in fields.items())}")
