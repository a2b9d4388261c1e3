"""Play a story: the simulated polls go through the same core as real ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pgwatch_sessions.core.events import DiagnosisChanged, LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import Diagnosis, Finding
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.limits import LimitId
from pgwatch_sessions.core.model import Client, LimitScope, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from tests.scenarios.classic import classic_rules
from tests.scenarios.story import Poll, Story, begin, polls
from tests.scenarios.world import Leaked

#: At every so many polls, a poll is also judged by a core that knows no other, as in `check --polls 1`.
_ALONE_EVERY = 6

FindingEvent = LeakOpened | LeakChanged | LeakClosed | DiagnosisChanged


class Seen(NamedTuple):
    """The state published after one poll."""

    at: float
    failed: bool
    findings: tuple[Finding, ...]
    diagnoses: Mapping[Client | None, Diagnosis]
    exhaustion: Mapping[LimitId, float]
    #: Clients that have a session.
    present: frozenset[Client]
    #: The classic rules that fire at this poll.
    classic: frozenset[str]
    #: Clients with a leaked session that still exists.
    leaking: frozenset[Client]
    #: What this poll alone shows; empty if it was not judged alone.
    alone: tuple[Finding, ...]
    #: Clients whose requests wait for a connection of their own pool.
    queueing: frozenset[Client]

    def absent(self, client: Client | None) -> bool:
        """Return whether a client has no session now."""
        return client is not None and client not in self.present


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A played story: what the core reported, and what is true. Times are seconds of the story."""

    story: Story
    events: tuple[tuple[float, FindingEvent], ...]
    seen: tuple[Seen, ...]
    ledger: tuple[Leaked, ...]
    exhausted_at: Mapping[tuple[LimitScope, str], float]

    @property
    def opened(self) -> tuple[tuple[float, Finding], ...]:
        """The opened findings with their times."""
        return tuple((at, event.finding) for at, event in self.events if isinstance(event, LeakOpened))

    @property
    def closed(self) -> tuple[tuple[float, Finding], ...]:
        """The closed findings with their times."""
        return tuple((at, event.finding) for at, event in self.events if isinstance(event, LeakClosed))


def play(story: Story, *, policy: Policy | None = None, seed: int = 0) -> Played:
    """Play a story from beginning to end."""
    world = begin(story, seed=seed)
    state = ServerState(server="db")
    events: list[tuple[float, FindingEvent]] = []
    seen: list[Seen] = []
    restarts = list(story.monitor_restarts)
    for number, poll in enumerate(polls(story, world)):
        if restarts and poll.at >= restarts[0]:
            restarts.pop(0)
            state = ServerState(server="db")
        state, changes = advance(state, poll.outcome, policy=policy or story.policy, at=poll.clock, duration=0.01)
        events += [(poll.at, change) for change in changes if isinstance(change, FindingEvent)]
        snapshot = poll.outcome if isinstance(poll.outcome, Snapshot) else None
        seen.append(
            Seen(
                poll.at,
                failed=snapshot is None,
                findings=state.findings,
                diagnoses=state.diagnoses,
                exhaustion=state.exhaustion,
                present=frozenset(session.client for session in snapshot.sessions) if snapshot else frozenset(),
                classic=classic_rules(snapshot) if snapshot else frozenset(),
                leaking=world.leaking(),
                alone=_judged_alone(poll, policy or story.policy) if number % _ALONE_EVERY == 0 else (),
                queueing=world.queueing(),
            )
        )
    return Played(
        story=story,
        events=tuple(events),
        seen=tuple(seen),
        ledger=tuple(world.ledger),
        exhausted_at=dict(world.server.exhausted_at),
    )


def _judged_alone(poll: Poll, policy: Policy) -> tuple[Finding, ...]:
    state, _ = advance(ServerState(server="db"), poll.outcome, policy=policy, at=poll.clock, duration=0.01)
    return state.findings
