"""Poll a real server, with a short hold limit and growth window, while workloads run on it."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pgwatch_sessions.core.events import DiagnosisChanged, Event, LeakChanged, LeakOpened
from pgwatch_sessions.core.findings import Finding, FindingKey, LeakKind, Severity, Verdict
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.recording import RecordingFile, encode_poll
from tests.support.polling import held, seen
from tests.support.servers import Database

T = TypeVar("T")
Workload = Coroutine[None, None, None]

HOLD_LIMIT = 1.0
POLICY = Policy(hold_limit=HOLD_LIMIT, growth_window=10 * HOLD_LIMIT)
INTERVAL = 0.1
#: Seconds. A leak is found in about three seconds; a busy machine may take longer.
WITHIN = 20.0


@dataclass(slots=True, kw_only=True)
class Monitor:
    """Polls one database, and keeps the state and all events."""

    database: Database
    #: All polls, to replay them if a test fails.
    recording: RecordingFile
    state: ServerState = field(default_factory=lambda: ServerState(server="db"))
    events: list[Event] = field(default_factory=list)

    def poll_until(self, *workloads: Workload, until: Callable[["Monitor"], T | None], within: float = WITHIN) -> T:
        """Run workloads and poll until a condition has a true value, and return that value.

        Raises AssertionError after `within` seconds, and any error of a workload.
        """
        return asyncio.run(self._poll_until(workloads, until, within))

    def poll_for(self, seconds: float, *workloads: Workload) -> None:
        """Run workloads and poll for some seconds by the server's clock."""
        end = self.seconds + seconds
        self.poll_until(*workloads, until=lambda monitor: monitor.seconds > end)

    async def _poll_until(
        self, workloads: Sequence[Workload], until: Callable[["Monitor"], T | None], within: float
    ) -> T:
        tasks = [asyncio.create_task(workload) for workload in workloads]
        deadline = time.monotonic() + within
        async with held(self.database.dsn()) as connection:
            try:
                while not (value := await self._poll(connection, until)):
                    assert time.monotonic() < deadline, f"not within {within:.0f} s; {self.report()}"
                    for task in tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(INTERVAL)
                return value
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self, connection: HeldConnection, until: Callable[["Monitor"], T | None]) -> T | None:
        before = time.monotonic()
        snapshot = seen(await connection.poll())
        self.recording.write(encode_poll(snapshot, server="db", at=time.time()))
        duration = time.monotonic() - before
        self.state, events = advance(self.state, snapshot, policy=POLICY, at=time.time(), duration=duration)
        self.events += events
        return until(self)

    @property
    def seconds(self) -> float:
        """Seconds between the first and the last poll, by the server's clock."""
        history = self.state.memory.history
        return (history.last_poll_at or 0.0) - (history.first_poll_at or 0.0)

    def client(self, application: str) -> Client:
        """Return the database's client with this application name."""
        return Client(self.database.name, "postgres", application)

    def verdict(self, application: str) -> Verdict | None:
        """Return the current verdict on a client."""
        diagnosis = self.state.diagnoses.get(self.client(application))
        return diagnosis.verdict if diagnosis else None

    def open_warning(self, application: str, kind: LeakKind, site: str) -> Finding | None:
        """Return the open finding of this client, kind and site, if it is a warning or graver."""
        key = FindingKey(self.client(application), kind, site)
        matching = (finding for finding in self.state.findings if finding.key == key and is_warning(finding))
        return next(matching, None)

    def warned_applications(self) -> set[str]:
        """Return the applications on the database that ever had a warning."""
        return {finding.key.client.application for finding in self._reported_findings() if is_warning(finding)}

    def count_events(self, event: type[Event]) -> int:
        """Return the number of events of a type."""
        return sum(isinstance(each, event) for each in self.events)

    def all_verdicts(self) -> set[Verdict]:
        """Return all verdicts so far on clients of the database and on the server."""
        return {event.diagnosis.verdict for event in self.events if isinstance(event, DiagnosisChanged)}

    def reason(self, application: str) -> str:
        """Return the reason for the current verdict on a client."""
        return self.state.diagnoses[self.client(application)].reason

    def report(self) -> str:
        """Return all findings and verdicts as text, for a person."""
        findings = [f"{finding.severity} {finding.key}: {len(finding.sessions)}" for finding in self.state.findings]
        verdicts = [
            f"{event.diagnosis.client}: {event.diagnosis.verdict} ({event.diagnosis.reason})"
            for event in self.events
            if isinstance(event, DiagnosisChanged)
        ]
        return "\n".join([f"after {self.seconds:.1f} s; polls in {self.recording.path}", *findings, *verdicts])

    def _reported_findings(self) -> Iterator[Finding]:
        for event in self.events:
            if isinstance(event, LeakOpened | LeakChanged) and event.finding.key.client.database == self.database.name:
                yield event.finding


def is_warning(finding: Finding) -> bool:
    """Return whether a finding is graver than a notice."""
    return finding.severity.rank >= Severity.WARNING.rank
