"""The result of a check on one server, for the clients that are checked."""

from collections.abc import Iterable
from dataclasses import dataclass

from pgwatch_sessions.commands.check.client_filter import ClientFilter
from pgwatch_sessions.commands.command import EXIT_FOUND, EXIT_OK, EXIT_UNSEEN
from pgwatch_sessions.core.findings import Finding, Severity
from pgwatch_sessions.core.judging.blocking import Blocking
from pgwatch_sessions.core.model import Client, Session, Snapshot
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import ClientSummary, count_hidden, summarise
from pgwatch_sessions.core.summaries.not_judged import NotJudged


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What the check found on one server."""

    state: ServerState
    clients: tuple[ClientSummary, ...]
    #: The worst first.
    findings: tuple[Finding, ...]
    #: Held sessions that are no finding, and why.
    not_judged: tuple[NotJudged, ...]
    #: Sessions whose state our role may not see.
    hidden: int

    @property
    def polled_at(self) -> float:
        """The server's time of the last successful poll."""
        return self.state.last_poll_at or 0.0

    @property
    def seconds_watched(self) -> float:
        """Seconds between the first successful poll and the last."""
        first = self.state.first_poll_at
        return 0.0 if first is None else self.polled_at - first

    @property
    def polls(self) -> int:
        """The number of polls, failed ones included."""
        return sum(self.state.poll_durations.counts)

    @property
    def failed_polls(self) -> int:
        """The number of failed polls."""
        return sum(self.state.poll_failures.values())

    @property
    def session_count(self) -> int:
        """The number of sessions of the clients that are checked."""
        return sum(client.sessions for client in self.clients)

    def sessions_of(self, client: Client) -> tuple[Session, ...]:
        """Return all sessions of a client at the last successful poll."""
        summary = self.state.last_summary
        return tuple(each for each in summary.snapshot.sessions if each.client == client) if summary else ()

    def exit_code(self, fail_on: Severity) -> int:
        """Return the exit code. If sessions are not visible, the check cannot say that none of them leaks."""
        if self.state.failure is not None or self.hidden:
            return EXIT_UNSEEN
        found = any(finding.severity.rank >= fail_on.rank for finding in self.findings)
        return EXIT_FOUND if found else EXIT_OK


def result_of(state: ServerState, clients: ClientFilter) -> CheckResult:
    """Return the result for the clients that the filter matches."""
    findings = [each for each in state.findings if each.sessions and clients.matches(each.key.client)]
    snapshot = state.last_summary.snapshot if state.last_summary else None
    sessions = [each for each in snapshot.sessions if clients.matches(each.client)] if snapshot else []
    return CheckResult(
        state=state,
        clients=tuple(_client_summaries(sessions, snapshot)) if snapshot else (),
        findings=tuple(sorted(findings, key=lambda each: (-each.severity.rank, each.since))),
        not_judged=tuple(each for each in state.not_judged if clients.matches(each.client)),
        hidden=count_hidden(sessions),
    )


def _client_summaries(sessions: Iterable[Session], snapshot: Snapshot) -> Iterable[ClientSummary]:
    """Add up each client, most sessions first. The daemon's summary will not do: it folds clients into `other`."""
    by_client: dict[Client, list[Session]] = {}
    for session in sessions:
        by_client.setdefault(session.client, []).append(session)
    blocking = Blocking(snapshot.sessions)
    summaries = [summarise(client, own, at=snapshot.taken_at, blocking=blocking) for client, own in by_client.items()]
    return sorted(summaries, key=lambda summary: (-summary.sessions, summary.client))
