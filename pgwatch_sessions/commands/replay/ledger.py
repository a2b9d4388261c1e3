"""What a replay found in all: every finding with its worst hour, every server with its polls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pgwatch_sessions.commands.replay.steps import Step
from pgwatch_sessions.core.events import LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import Finding, FindingKey, Severity
from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.core.state import ServerState

#: Whoever is on call is paged from here on.
PAGING = Severity.WARNING


class CaseId(NamedTuple):
    """What identifies a finding for ever."""

    server: str
    opened_as: FindingKey
    opened_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One finding from its opening to its closing. Times are seconds since the epoch."""

    server: str
    #: As it was last told; at the end, as it was last.
    finding: Finding
    worst: Severity
    most_sessions: int
    highest_rate: float
    #: When each severity was first reached.
    reached_at: Mapping[Severity, float]
    #: None while it is open.
    closed_at: float | None = None

    @property
    def paged_at(self) -> float | None:
        """When somebody would have been paged; None when nobody would."""
        return min((at for severity, at in self.reached_at.items() if severity.rank >= PAGING.rank), default=None)


@dataclass(slots=True, kw_only=True)
class Course:
    """One server's polls, in numbers."""

    first_at: float
    last_at: float
    polls: int = 0
    failures: Counter[FailureReason] = field(default_factory=Counter)
    state: ServerState


class Ledger:
    """All that was found so far. Grows with the findings, not with the polls."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.courses: dict[str, Course] = {}
        self._cases: dict[CaseId, Case] = {}

    def note(self, step: Step) -> None:
        """Take in what one poll led to."""
        self._note_poll(step)
        for happening in step.happenings:
            match happening:
                case LeakOpened(finding) | LeakChanged(finding):
                    self._note_finding(step, finding)
                case LeakClosed(finding):
                    self._note_finding(step, finding, closed=True)

    def cases(self) -> Sequence[Case]:
        """Return every finding, the worst first, as they stand."""
        for course in self.courses.values():
            at = course.state.last_poll_at
            for finding in course.state.findings:
                self._note_finding(Step(course.last_at if at is None else at, course.state, ()), finding)
        return sorted(self._cases.values(), key=lambda case: (-case.worst.rank, case.finding.opened_at, case.server))

    def _note_poll(self, step: Step) -> None:
        course = self.courses.get(step.state.server)
        if course is None:
            course = Course(first_at=step.at, last_at=step.at, state=step.state)
            self.courses[step.state.server] = course
        course.first_at, course.last_at = min(course.first_at, step.at), max(course.last_at, step.at)
        course.polls += 1
        course.state = step.state
        if step.state.failure is not None:
            course.failures[step.state.failure.reason] += 1

    def _note_finding(self, step: Step, finding: Finding, *, closed: bool = False) -> None:
        identity = case_id(step.state.server, finding)
        before = self._cases.get(identity) or Case(
            server=step.state.server,
            finding=finding,
            worst=finding.severity,
            most_sessions=0,
            highest_rate=0.0,
            reached_at={},
        )
        self._cases[identity] = replace(
            before,
            finding=finding,
            worst=max(before.worst, finding.severity, key=lambda severity: severity.rank),
            most_sessions=max(before.most_sessions, len(finding.sessions)),
            highest_rate=max(before.highest_rate, finding.rate_per_minute),
            reached_at={finding.severity: step.at, **before.reached_at},
            closed_at=step.at if closed else None,
        )


def case_id(server: str, finding: Finding) -> CaseId:
    """Return what identifies a finding of a server."""
    return CaseId(server, finding.opened_as, finding.opened_at)
