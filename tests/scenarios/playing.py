"""Play a story: the simulated looks go through the same core as real ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pgwatch_sessions.core.findings import Changed, Closed, Diagnosed, Diagnosis, Finding, Opened
from pgwatch_sessions.core.forecast import Limit
from pgwatch_sessions.core.model import Client, Scope, Snapshot
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.state import ServerState, advance
from tests.scenarios.classic import classic_rules
from tests.scenarios.story import Story, begin, looks
from tests.scenarios.world import Leaked

FindingEvent = Opened | Changed | Closed | Diagnosed


class Seen(NamedTuple):
    """What was published after one look."""

    at: float
    failed: bool
    findings: tuple[Finding, ...]
    diagnoses: Mapping[Client | None, Diagnosis]
    exhaustion: Mapping[Limit, float]
    #: Clients with a session.
    present: frozenset[Client]
    #: The classic rules that hold at this look.
    classic: frozenset[str]
    #: Clients with a leaked session that is still there.
    leaking: frozenset[Client]

    def absent(self, client: Client | None) -> bool:
        """Whether a client has no session at present."""
        return client is not None and client not in self.present


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A story's course, and its truth. Times are seconds of the story."""

    story: Story
    events: tuple[tuple[float, FindingEvent], ...]
    seen: tuple[Seen, ...]
    ledger: tuple[Leaked, ...]
    exhausted_at: Mapping[tuple[Scope, str], float]

    @property
    def opened(self) -> tuple[tuple[float, Finding], ...]:
        """When which finding was opened."""
        return tuple((at, event.finding) for at, event in self.events if isinstance(event, Opened))

    @property
    def closed(self) -> tuple[tuple[float, Finding], ...]:
        """When which finding was closed."""
        return tuple((at, event.finding) for at, event in self.events if isinstance(event, Closed))


def play(story: Story, *, policy: Policy | None = None, seed: int = 0) -> Played:
    """Play a story from beginning to end."""
    world = begin(story, seed=seed)
    state = ServerState(server="db")
    events: list[tuple[float, FindingEvent]] = []
    seen: list[Seen] = []
    restarts = list(story.monitor_restarts)
    for look in looks(story, world):
        if restarts and look.at >= restarts[0]:
            restarts.pop(0)
            state = ServerState(server="db")
        state, changes = advance(state, look.outcome, policy=policy or story.policy, at=look.clock, duration=0.01)
        events += [(look.at, change) for change in changes if isinstance(change, FindingEvent)]
        snapshot = look.outcome if isinstance(look.outcome, Snapshot) else None
        seen.append(
            Seen(
                look.at,
                failed=snapshot is None,
                findings=state.findings,
                diagnoses=state.diagnoses,
                exhaustion=state.exhaustion,
                present=frozenset(session.client for session in snapshot.sessions) if snapshot else frozenset(),
                classic=classic_rules(snapshot) if snapshot else frozenset(),
                leaking=world.leaking(),
            )
        )
    return Played(
        story=story,
        events=tuple(events),
        seen=tuple(seen),
        ledger=tuple(world.ledger),
        exhausted_at=dict(world.server.exhausted_at),
    )
