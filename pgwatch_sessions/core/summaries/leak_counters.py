"""Counts leaks since the daemon started, for Prometheus counters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pgwatch_sessions.core.events import LeakClosed, LeakEvent, LeakOpened
from pgwatch_sessions.core.findings import Finding, FindingId, LeakKind
from pgwatch_sessions.core.model import OTHER_CLIENT, Client


class LeakLabel(NamedTuple):
    """The labels that leaks are counted by."""

    client: Client
    kind: LeakKind


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakCounters:
    """Counters, which only grow."""

    opened: Mapping[LeakLabel, int] = field(default_factory=dict)
    closed: Mapping[LeakLabel, int] = field(default_factory=dict)
    #: Sessions that joined a finding.
    sessions: Mapping[LeakLabel, int] = field(default_factory=dict)

    def count(
        self, events: Iterable[LeakEvent], before: Iterable[Finding], after: Iterable[Finding], *, max_clients: int
    ) -> "LeakCounters":
        """Return the counters after a poll; `before` and `after` are the findings open before and after it.

        A counter is never forgotten, so clients beyond `max_clients` are counted as `other`.
        """
        opened, closed, sessions = dict(self.opened), dict(self.closed), dict(self.sessions)
        for event in events:
            label = _label(event.finding, opened, max_clients)
            opened[label] = opened.get(label, 0) + isinstance(event, LeakOpened)
            closed[label] = closed.get(label, 0) + isinstance(event, LeakClosed)
        totals: dict[FindingId, int] = {finding.id: finding.total for finding in before}
        for finding in after:
            label = _label(finding, opened, max_clients)
            new = finding.total - totals.get(finding.id, 0)
            sessions[label] = sessions.get(label, 0) + max(0, new)
        return LeakCounters(opened=opened, closed=closed, sessions=sessions)


def _label(finding: Finding, known: Mapping[LeakLabel, int], max_clients: int) -> LeakLabel:
    client, kind = finding.key.client, finding.opened_as.kind  # a finding keeps one label from its opening to its end
    clients = {label.client for label in known}
    return LeakLabel(client if client in clients or len(clients) < max_clients else OTHER_CLIENT, kind)
