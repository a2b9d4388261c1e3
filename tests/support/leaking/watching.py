"""Looking at a real server, with limits scaled down, while something goes on there."""

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
Life = Coroutine[None, None, None]

HOLD_LIMIT = 1.0
POLICY = Policy(hold_limit=HOLD_LIMIT, growth_window=10 * HOLD_LIMIT)
INTERVAL = 0.1
#: A leak is found in about three seconds; a busy machine may take this long.
WITHIN = 20.0


@dataclass(slots=True, kw_only=True)
class Watch:
    """What was seen on one database, and what was said about it."""

    database: Database
    #: Every poll, to be replayed when something was misjudged.
    recording: RecordingFile
    state: ServerState = field(default_factory=lambda: ServerState(server="db"))
    events: list[Event] = field(default_factory=list)

    def live(self, *lives: Life, until: Callable[["Watch"], T | None], within: float = WITHIN) -> T:
        """Poll while these lives go on, until a condition has a true value; return that.

        AssertionError after so many seconds, and whatever error a life ends with.
        """
        return asyncio.run(self._live(lives, until, within))

    def live_for(self, seconds: float, *lives: Life) -> None:
        """Look for so many seconds, by the server's clock, while these lives go on."""
        end = self.seconds + seconds
        self.live(*lives, until=lambda watch: watch.seconds > end)

    async def _live(self, lives: Sequence[Life], until: Callable[["Watch"], T | None], within: float) -> T:
        connection = held(self.database.dsn())
        tasks = [asyncio.create_task(life) for life in lives]
        deadline = time.monotonic() + within
        try:
            while not (value := await self._poll(connection, until)):
                assert time.monotonic() < deadline, f"not within {within:.0f} s; {self.told()}"
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(INTERVAL)
            return value
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await connection.close()

    async def _poll(self, connection: HeldConnection, until: Callable[["Watch"], T | None]) -> T | None:
        before = time.monotonic()
        snapshot = seen(await connection.poll())
        self.recording.write(encode_poll(snapshot, server="db", at=time.time()))
        duration = time.monotonic() - before
        self.state, events = advance(self.state, snapshot, policy=POLICY, at=time.time(), duration=duration)
        self.events += events
        return until(self)

    @property
    def seconds(self) -> float:
        """How long it has been watched, by the server's clock."""
        history = self.state.memory.history
        return (history.last_poll_at or 0.0) - (history.first_poll_at or 0.0)

    def client(self, application: str) -> Client:
        """Return the client of the database that goes by this name."""
        return Client(self.database.name, "postgres", application)

    def verdict(self, application: str) -> Verdict | None:
        """Return what is said to be wrong with a client now."""
        diagnosis = self.state.diagnoses.get(self.client(application))
        return diagnosis.verdict if diagnosis else None

    def warned(self, application: str, kind: LeakKind, site: str) -> Finding | None:
        """Return the open finding of warning or above that names this client, kind and site."""
        key = FindingKey(self.client(application), kind, site)
        found = (finding for finding in self.state.findings if finding.key == key and is_warning(finding))
        return next(found, None)

    def warnings(self) -> set[str]:
        """Return the applications on the database that were ever warned of."""
        return {finding.key.client.application for finding in self._findings_told() if is_warning(finding)}

    def happened(self, event: type[Event]) -> int:
        """Return how many events of a type there were."""
        return sum(isinstance(each, event) for each in self.events)

    def verdicts(self) -> set[Verdict]:
        """Return all verdicts ever given on clients of the database, and on the server."""
        return {event.diagnosis.verdict for event in self.events if isinstance(event, DiagnosisChanged)}

    def reason(self, application: str) -> str:
        """Return what is said of the verdict on a client."""
        return self.state.diagnoses[self.client(application)].reason

    def told(self) -> str:
        """Say all that was said, for a human."""
        findings = [f"{finding.severity} {finding.key}: {len(finding.sessions)}" for finding in self.state.findings]
        said = [
            f"{event.diagnosis.client}: {event.diagnosis.verdict} ({event.diagnosis.reason})"
            for event in self.events
            if isinstance(event, DiagnosisChanged)
        ]
        return "\n".join([f"after {self.seconds:.1f} s; polls in {self.recording.path}", *findings, *said])

    def _findings_told(self) -> Iterator[Finding]:
        for event in self.events:
            if isinstance(event, LeakOpened | LeakChanged) and event.finding.key.client.database == self.database.name:
                yield event.finding


def is_warning(finding: Finding) -> bool:
    """Tell whether a finding is more than a notice."""
    return finding.severity.rank >= Severity.WARNING.rank
