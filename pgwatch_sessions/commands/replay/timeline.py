"""A replay as text, one line for each event that matters: what was found when, how it changed, and when it ended."""

from collections.abc import Iterator

from pgwatch_sessions.commands.replay.polls import (
    ClockSteppedBack,
    PollsMissing,
    ReplayedPoll,
    ReplayEvent,
    ServerRestarted,
)
from pgwatch_sessions.commands.replay.report import PAGING, ServerFindingId
from pgwatch_sessions.core.events import (
    ClientsFolded,
    DiagnosisChanged,
    LeakChanged,
    LeakClosed,
    LeakOpened,
    PrivilegeMissing,
    ServerDown,
    ServerUp,
)
from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.terminal import SEVERITY_COLOURS, Colour, Paint
from pgwatch_sessions.wording.amounts import counted, duration, moment
from pgwatch_sessions.wording.events import FOLDED_CLIENTS_REMEDY, grant_statement
from pgwatch_sessions.wording.failures import failure_text
from pgwatch_sessions.wording.labels import client_name, printable
from pgwatch_sessions.wording.sentences import diagnosis_change_text, finding_text, folded_text, hidden_text

#: While its severity stays the same, a finding gets another line when it has this many times the sessions.
_NOTABLE_GROWTH = 2

_Obstacle = ServerDown | PrivilegeMissing | ClientsFolded | PollsMissing | ClockSteppedBack | ServerRestarted


class Timeline:
    """Makes the lines, and remembers how many sessions each open finding had in its last line."""

    def __init__(self, paint: Paint) -> None:
        self._paint = paint
        self._shown_sessions: dict[ServerFindingId, int] = {}

    def lines(self, poll: ReplayedPoll) -> Iterator[str]:
        """Yield the lines of one poll."""
        for event in poll.events:
            text = self._text(event, poll)
            if text:
                yield f"{self._paint(moment(poll.at), Colour.FAINT)}  {printable(poll.state.server)}  {text}"

    def _text(self, event: ReplayEvent, poll: ReplayedPoll) -> str:
        match event:
            case LeakOpened(finding):
                return self._finding(finding, None, poll)
            case LeakChanged(finding, before):
                return self._finding(finding, before, poll)
            case LeakClosed(finding):
                return self._closed(finding, poll)
            case DiagnosisChanged(diagnosis, before):
                return diagnosis_change_text(diagnosis, before)
            case ServerUp():
                return "the server can be polled"
            case _:
                return self._paint(printable(_obstacle(event)), Colour.YELLOW)

    def _finding(self, finding: Finding, before: Finding | None, poll: ReplayedPoll) -> str:
        identity = ServerFindingId(poll.state.server, finding.id)
        is_same = before is not None and (before.key, before.severity) == (finding.key, finding.severity)
        if is_same and len(finding.sessions) < _NOTABLE_GROWTH * self._shown_sessions.get(identity, 0):
            return ""
        self._shown_sessions[identity] = len(finding.sessions)
        is_worse = before is None or finding.severity.rank > before.severity.rank
        pages = is_worse and finding.severity.rank >= PAGING.rank
        severity = self._paint(f"{finding.severity:<8}", SEVERITY_COLOURS[finding.severity])
        text = finding_text(finding, at=poll.at)
        return f"{severity}  {client_name(finding.key.client)}: {text}{'; would have paged' if pages else ''}"

    def _closed(self, finding: Finding, poll: ReplayedPoll) -> str:
        self._shown_sessions.pop(ServerFindingId(poll.state.server, finding.id), None)
        total = f"{counted(finding.total, 'session')} in total at {printable(finding.key.site)}"
        text = f"closed    {client_name(finding.key.client)}: {total}, over {duration(poll.at - finding.since)}"
        return self._paint(text, Colour.GREEN)


def _obstacle(event: _Obstacle) -> str:
    """Describe what makes the findings less certain."""
    match event:
        case ServerDown(failure):
            return f"cannot poll this server: {failure_text(failure)}"
        case PrivilegeMissing(role, hidden):
            return f"{hidden_text(hidden)}: {grant_statement(role)}"
        case ClientsFolded(folded):
            return f"{folded_text(folded)}: {FOLDED_CLIENTS_REMEDY}"
        case PollsMissing(seconds):
            return f"no poll for {duration(seconds)}"
        case ClockSteppedBack(seconds):
            return f"the clock stepped back by {duration(seconds)}"
        case ServerRestarted():
            return "the server was restarted"
