"""Collects what a replay found: each finding from its opening to its closing, and each server's polls."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pgwatch_sessions.commands.replay.polls import ReplayedPoll
from pgwatch_sessions.core.events import LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import Finding, FindingId, Severity
from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.core.state import ServerState

#: A finding pages the person on call from this severity on.
PAGING = Severity.WARNING


class ServerFindingId(NamedTuple):
    """Identifies a finding among those of all servers."""

    server: str
    finding: FindingId


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingSummary:
    """One finding from its opening to its closing. Times are seconds since the epoch."""

    server: str
    #: The finding as it was last seen.
    finding: Finding
    worst: Severity
    most_sessions: int
    #: The highest number of new sessions per minute.
    highest_rate: float
    #: When each severity was first reached.
    reached_at: Mapping[Severity, float]
    #: None while it is open.
    closed_at: float | None = None

    @property
    def paged_at(self) -> float | None:
        """When the person on call would have been paged; None if never."""
        return min((at for severity, at in self.reached_at.items() if severity.rank >= PAGING.rank), default=None)


@dataclass(slots=True, kw_only=True)
class ServerTally:
    """The polls of one server, counted."""

    first_at: float
    last_at: float
    polls: int = 0
    failures: Counter[FailureReason] = field(default_factory=Counter)
    #: The state after the last poll.
    state: ServerState


class ReplayReport:
    """What was found so far. It grows with the number of findings, not with the number of polls."""

    def __init__(self) -> None:
        self.servers: dict[str, ServerTally] = {}
        self._findings: dict[ServerFindingId, FindingSummary] = {}

    def add(self, poll: ReplayedPoll) -> None:
        """Add one poll."""
        server = poll.state.server
        self._count(server, poll)
        for event in poll.events:
            match event:
                case LeakOpened(finding) | LeakChanged(finding):
                    self._add_finding(server, finding, poll.at)
                case LeakClosed(finding):
                    self._add_finding(server, finding, poll.at, closed_at=poll.at)

    def findings(self) -> Sequence[FindingSummary]:
        """Return every finding, the worst first. Open ones are brought up to date: small changes cause no event."""
        for name, server in self.servers.items():
            at = server.state.last_poll_at
            for finding in server.state.findings:
                self._add_finding(name, finding, server.last_at if at is None else at)
        return sorted(self._findings.values(), key=lambda each: (-each.worst.rank, each.finding.opened_at, each.server))

    def _count(self, name: str, poll: ReplayedPoll) -> None:
        server = self.servers.setdefault(name, ServerTally(first_at=poll.at, last_at=poll.at, state=poll.state))
        server.first_at, server.last_at = min(server.first_at, poll.at), max(server.last_at, poll.at)
        server.polls += 1
        server.state = poll.state
        if poll.state.failure is not None:
            server.failures[poll.state.failure.reason] += 1

    def _add_finding(self, server: str, finding: Finding, at: float, *, closed_at: float | None = None) -> None:
        identity = ServerFindingId(server, finding.id)
        before = self._findings.get(identity) or FindingSummary(
            server=server, finding=finding, worst=finding.severity, most_sessions=0, highest_rate=0.0, reached_at={}
        )
        self._findings[identity] = replace(
            before,
            finding=finding,
            worst=max(before.worst, finding.severity, key=lambda severity: severity.rank),
            most_sessions=max(before.most_sessions, len(finding.sessions)),
            highest_rate=max(before.highest_rate, finding.rate_per_minute),
            reached_at={finding.severity: at, **before.reached_at},
            closed_at=closed_at,
        )
