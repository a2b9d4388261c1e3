"""A replay as text, one line for each event that matters: what was found when, how it changed, and when it ended."""

from collections.abc import Iterator

from pgwatch_sessions.commands.replay.polls import ReplayedPoll, ReplayEvent, replay_line
from pgwatch_sessions.commands.replay.report import PAGING, ServerFindingId
from pgwatch_sessions.core.events import LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import FindingState
from pgwatch_sessions.terminal import Paint, laid_out
from pgwatch_sessions.wording.amounts import moment
from pgwatch_sessions.wording.event_lines import is_other_finding, is_said_by_another

#: While its severity stays the same, a finding gets another line when it has this many times the sessions.
_NOTABLE_GROWTH = 2


class Timeline:
    """Makes the lines, and remembers how many sessions each open finding had in its last line."""

    def __init__(self, paint: Paint) -> None:
        self._paint = paint
        self._shown_sessions: dict[ServerFindingId, int] = {}

    def lines(self, poll: ReplayedPoll) -> Iterator[str]:
        """Yield the lines of one poll."""
        for event in poll.events:
            if self._is_shown(event, poll.state.server):
                line = replay_line(event, at=poll.at)
                line = line._replace(text=f"{line.text}{_would_have_paged(event)}")
                yield laid_out(line, moment(poll.at), self._paint, server=poll.state.server)

    def _is_shown(self, event: ReplayEvent, server: str) -> bool:
        match event:
            case LeakChanged(finding, before):
                identity = ServerFindingId(server, finding.id)
                grown = len(finding.sessions) >= _NOTABLE_GROWTH * self._shown_sessions.get(identity, 0)
                if not grown and not is_other_finding(finding, before):
                    return False
                self._shown_sessions[identity] = len(finding.sessions)
            case LeakOpened(finding):
                self._shown_sessions[ServerFindingId(server, finding.id)] = len(finding.sessions)
            case LeakClosed(finding):
                self._shown_sessions.pop(ServerFindingId(server, finding.id), None)
        return not is_said_by_another(event)


def _would_have_paged(event: ReplayEvent) -> str:
    match event:
        case LeakOpened(finding):
            pages = finding.severity.rank >= PAGING.rank
        case LeakChanged(finding, before) if finding.state is not FindingState.RECOVERING:
            pages = finding.severity.rank >= PAGING.rank and finding.severity.rank > before.severity.rank
        case _:
            pages = False
    return "; would have paged" if pages else ""
