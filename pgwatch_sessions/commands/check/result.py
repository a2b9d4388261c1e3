"""What a check found at one server, narrowed to the clients that were asked for."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from pgwatch_sessions.commands.command import EXIT_FOUND, EXIT_OK, EXIT_UNSEEN
from pgwatch_sessions.core.findings import Finding, Severity
from pgwatch_sessions.core.judging.blocking import Blocking
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Session, Snapshot
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import ClientSummary, count_hidden, summarise


class Narrowing(NamedTuple):
    """Shell patterns of the clients that matter; None means all."""

    application: str | None
    database: str | None

    def admits(self, client: Client) -> bool:
        """Tell whether a client matters."""
        return (self.application is None or fnmatchcase(client.application, self.application)) and (
            self.database is None or fnmatchcase(client.database, self.database)
        )


class Young(NamedTuple):
    """Sessions of a client that are idle in transaction, and too young to judge."""

    client: Client
    sessions: int
    #: Of the oldest, in seconds.
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One server as the check saw it."""

    state: ServerState
    clients: tuple[ClientSummary, ...]
    #: The worst first.
    findings: tuple[Finding, ...]
    #: Those that did not move while we polled.
    young: tuple[Young, ...]
    hidden: int

    @property
    def at(self) -> float:
        """The server's time of the last poll that succeeded."""
        return self.state.last_poll_at or 0.0

    @property
    def watched(self) -> float:
        """Seconds between the first and the last poll that succeeded."""
        began_at = self.state.first_poll_at
        return 0.0 if began_at is None else self.at - began_at

    @property
    def polls(self) -> int:
        """How often we polled, failures included."""
        return sum(self.state.poll_durations.counts)

    def sessions_of(self, client: Client) -> tuple[Session, ...]:
        """Return all sessions of a client."""
        view = self.state.last_summary
        return tuple(each for each in view.snapshot.sessions if each.client == client) if view else ()

    def exit_code(self, fail_on: Severity) -> int:
        """Return the contract's exit code: whoever does not see all cannot say that nothing is there."""
        if self.state.failure is not None or self.hidden:
            return EXIT_UNSEEN
        found = any(finding.severity.rank >= fail_on.rank for finding in self.findings)
        return EXIT_FOUND if found else EXIT_OK


def result_of(state: ServerState, narrowing: Narrowing, *, hold_limit: float) -> Result:
    """Take from the state what the check is about; times are seconds."""
    snapshot = state.last_summary.snapshot if state.last_summary else None
    findings = [each for each in state.findings if each.sessions and narrowing.admits(each.key.client)]
    clients = tuple(_clients(snapshot, narrowing)) if snapshot else ()
    return Result(
        state=state,
        clients=clients,
        findings=tuple(sorted(findings, key=lambda each: (-each.severity.rank, each.since))),
        young=tuple(_young(state, snapshot, narrowing, hold_limit)) if snapshot else (),
        hidden=count_hidden(each for each in snapshot.sessions if narrowing.admits(each.client)) if snapshot else 0,
    )


def _clients(snapshot: Snapshot, narrowing: Narrowing) -> Iterable[ClientSummary]:
    """Add up the clients, most sessions first. None is folded: a report has no label budget."""
    sessions: dict[Client, list[Session]] = {}
    for session in snapshot.sessions:
        if narrowing.admits(session.client):
            sessions.setdefault(session.client, []).append(session)
    blocking = Blocking(snapshot.sessions)
    summaries = [summarise(client, own, at=snapshot.taken_at, blocking=blocking) for client, own in sessions.items()]
    return sorted(summaries, key=lambda summary: (-summary.sessions, summary.client))


def _young(state: ServerState, snapshot: Snapshot, narrowing: Narrowing, hold_limit: float) -> Iterable[Young]:
    began_at = state.first_poll_at
    ages: dict[Client, list[float]] = {}
    for session in snapshot.sessions:
        since = session.state_change
        if session.state not in IDLE_IN_TRANSACTION_STATES or since is None or not narrowing.admits(session.client):
            continue
        still = began_at is not None and since <= began_at
        if still and snapshot.taken_at - since <= hold_limit:
            ages.setdefault(session.client, []).append(snapshot.taken_at - since)
    return [Young(client, len(own), max(own)) for client, own in sorted(ages.items())]
