"""Leaks counted since the daemon started, for rates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pgwatch_sessions.core.events import FindingEvent
from pgwatch_sessions.core.findings import Closed, Finding, FindingKey, Kind, Opened
from pgwatch_sessions.core.model import OTHER_CLIENT, Client


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
        self, events: Iterable[FindingEvent], before: Iterable[Finding], after: Iterable[Finding], *, max_clients: int
    ) -> "LeakCounts":
        """Count what a look has changed. Counters are never forgotten, so clients beyond the budget are `other`."""
        opened, closed, sessions = dict(self.opened), dict(self.closed), dict(self.sessions)
        for event in events:
            label = _label(event.finding, opened, max_clients)
            opened[label] = opened.get(label, 0) + isinstance(event, Opened)
            closed[label] = closed.get(label, 0) + isinstance(event, Closed)
        totals = {_identity(finding): finding.total for finding in before}
        for finding in after:
            label = _label(finding, opened, max_clients)
            new = finding.total - totals.get(_identity(finding), 0)
            sessions[label] = sessions.get(label, 0) + max(0, new)
        return LeakCounts(opened=opened, closed=closed, sessions=sessions)


def _label(finding: Finding, known: Mapping[LeakLabel, int], max_clients: int) -> LeakLabel:
    client, kind = finding.key.client, finding.opened_as.kind  # one label from its opening to its end
    clients = {label.client for label in known}
    return LeakLabel(client if client in clients or len(clients) < max_clients else OTHER_CLIENT, kind)


def _identity(finding: Finding) -> tuple[FindingKey, float]:
    return finding.opened_as, finding.opened_at
