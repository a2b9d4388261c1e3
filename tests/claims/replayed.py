"""What the daemon would have said: a recording of an experiment, judged by the code that judges live polls."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgwatch_sessions.commands.replay.polls import ReplayedPoll, ReplayEvent, replay
from pgwatch_sessions.core.events import DiagnosisChanged, LeakChanged, LeakOpened
from pgwatch_sessions.core.findings import Finding, FindingId, Verdict
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.recording import BadLine, read_polls
from pgwatch_sessions.wording.event_lines import is_said_by_another
from pgwatch_sessions.wording.sentences import diagnosis_text, finding_text

#: Shorter than in production, because an experiment lasts seconds. All in seconds.
POLICY = Policy(hold_limit=2.0, growth_window=20.0)
_MAX_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The judged polls of one database."""

    database: str
    polls: Sequence[ReplayedPoll] = ()

    def said(self, application: str) -> tuple[str, ...]:
        """Return each finding on a run at its worst, and each verdict that no finding explains."""
        worst: dict[FindingId | str, tuple[tuple[int, int], str]] = {}
        for poll in self.polls:
            for event in poll.events:
                client = _client_of(event)
                if client is None or (client.database, client.application) != (self.database, application):
                    continue
                line = _line(event, poll.at)
                if line is not None:
                    key, weight, text = line
                    worst[key] = max(worst.get(key, ((-1, 0), "")), (weight, text))
        lines = [text for _, text in sorted(worst.values(), reverse=True)]
        return tuple(lines[:_MAX_LINES]) or ("nothing",)

    def most(self, application: str, *states: str) -> int:
        """Return the most sessions of a run that were in one of these states in any poll."""
        counts = [
            sum(number for state, number in self._states(poll, application).items() if state in states)
            for poll in self.polls
        ]
        return max(counts, default=0)

    @staticmethod
    def _states(poll: ReplayedPoll, application: str) -> Counter[str]:
        sessions = poll.state.summary.snapshot.sessions if poll.state.summary else ()
        return Counter(str(session.state) for session in sessions if session.client.application == application)


def replayed(file: Path, database: str) -> Replayed:
    """Judge a recording."""
    with file.open("rb") as source:
        polls = list(replay(read_polls(source), POLICY))
    bad = [poll for poll in polls if isinstance(poll, BadLine)]
    assert not bad, bad
    return Replayed(database=database, polls=[poll for poll in polls if not isinstance(poll, BadLine)])


def _client_of(event: ReplayEvent) -> Client | None:
    match event:
        case LeakOpened(finding) | LeakChanged(finding):
            return finding.key.client
        case DiagnosisChanged(diagnosis):
            return diagnosis.client
    return None


def _line(event: ReplayEvent, at: float) -> tuple[FindingId | str, tuple[int, int], str] | None:
    """Return what an event is about, its weight, and its sentence; None if another event says the same."""
    match event:
        case LeakOpened(finding) | LeakChanged(finding) if finding.sessions:
            return finding.id, _weight(finding), f"{finding.severity}: {finding_text(finding, at=at)}"
        case DiagnosisChanged(diagnosis) if not (is_said_by_another(event) or diagnosis.verdict is Verdict.OK):
            return str(diagnosis.verdict), (0, 0), f"diagnosis: {diagnosis_text(diagnosis)}"
    return None


def _weight(finding: Finding) -> tuple[int, int]:
    return 1 + finding.severity.rank, len(finding.sessions)
