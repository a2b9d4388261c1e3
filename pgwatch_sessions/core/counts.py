"""Leaks counted since the daemon started, for rates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pgwatch_sessions.core.events import FindingEvent
from pgwatch_sessions.core.findings import Closed, Finding, Kind, Opened
from pgwatch_sessions.core.model import Client


class LeakLabel(NamedTuple):
    """What leaks are counted by."""

    client: Client
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakCounts:
    """Counters that only grow."""

    opened: Mapping[LeakLabel, int] = field(default_factory=dict)
    closed: Mapping[LeakLabel, int] = field(default_factory=dict)
    #: Sessions that joined a finding.
    sessions: Mapping[LeakLabel, int] = field(default_factory=dict)

    def count(
        self, events: Iterable[FindingEvent], before: Iterable[Finding], after: Iterable[Finding]
    ) -> "LeakCounts":
        """Count what a look has changed."""
        opened, closed, sessions = dict(self.opened), dict(self.closed), dict(self.sessions)
        for event in events:
            label = LeakLabel(event.finding.key.client, event.finding.key.kind)
            opened[label] = opened.get(label, 0) + isinstance(event, Opened)
            closed[label] = closed.get(label, 0) + isinstance(event, Closed)
        totals = {(finding.opened_at, finding.key.client): finding.total for finding in before}
        for finding in after:
            label = LeakLabel(finding.key.client, finding.key.kind)
            new = finding.total - totals.get((finding.opened_at, finding.key.client), 0)
            sessions[label] = sessions.get(label, 0) + max(0, new)
        return LeakCounts(opened=opened, closed=closed, sessions=sessions)
