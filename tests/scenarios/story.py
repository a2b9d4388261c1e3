"""A story: who is there, what happens, and what is true about it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from zlib import crc32

from pgwatch_sessions.core.findings import LeakKind, Severity, Verdict
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, Failure, FailureReason, Snapshot
from tests.scenarios.server import EPOCH, Postgres
from tests.scenarios.world import World

#: Until the end of the story.
REST = float("inf")


class Part(Protocol):
    """Something that takes part in a story."""

    def play(self, world: World) -> None:
        """Begin; what happens later is scheduled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One leak of a story. When it began, its sessions and its rate are measured while the story is played."""

    client: Client
    #: None where the server does not show it.
    site: str | None
    kinds: frozenset[LeakKind] = frozenset({LeakKind.TRANSACTION_HELD})
    #: The least severity it must reach.
    severity: Severity = Severity.WARNING
    #: Seconds from the first leaked session to a finding, and from the second to a warning.
    found_within: float = 600.0
    warned_within: float = 300.0
    #: A rate is told, and right within a fifth.
    has_rate: bool = True
    #: Findings that may be opened for it.
    findings: int = 1


class Says(NamedTuple):
    """The verdicts that are right about a client (None: the server) for a part of the story."""

    client: Client | None
    begin: float
    end: float
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All of one story. Times are seconds from its beginning."""

    name: str
    family: str
    parts: tuple[Part, ...]
    minutes: float = 20.0
    leaks: tuple[Truth, ...] = ()
    server: Postgres = field(default_factory=Postgres)
    interval: float = 10.0
    policy: Policy = field(default_factory=Policy)
    #: Where the verdict is not simply `ok` before and `leaking` after.
    diagnosis: tuple[Says, ...] = ()
    #: (from, to, why): polls that fail.
    blind: tuple[tuple[float, float, FailureReason], ...] = ()
    #: (when, by how much): the server's clock is set.
    clock_steps: tuple[tuple[float, float], ...] = ()
    #: (when, how long): the server restarts.
    restarts: tuple[tuple[float, float], ...] = ()
    #: When the monitor restarts, with nothing remembered.
    monitor_restarts: tuple[float, ...] = ()
    #: Wrong things may be said of these clients, for they do look like that.
    excused: frozenset[Client] = frozenset()
    #: Whether the true forecast is checked: growth towards a limit without a pool's bound.
    forecast: bool = False

    @property
    def healthy(self) -> bool:
        """Whether nothing leaks."""
        return not self.leaks


class Poll(NamedTuple):
    """One poll: when in the story, and what it gave."""

    at: float
    outcome: Snapshot | Failure

    @property
    def clock(self) -> float:
        """The monitor's own clock."""
        return EPOCH + self.at


def begin(story: Story, *, seed: int = 0) -> World:
    """Set the scene."""
    world = World(crc32(story.name.encode()) + seed, story.server)
    for when, by in story.clock_steps:
        world.simulation.at(when, lambda by=by: world.server.step_clock(by))  # type: ignore[misc]
    for when, seconds in story.restarts:
        world.simulation.at(when, lambda seconds=seconds: world.server.restart(seconds=seconds))  # type: ignore[misc]
    for part in story.parts:
        part.play(world)
    return world


def polls(story: Story, world: World) -> Iterator[Poll]:
    """Let the story happen, looking at it at each interval."""
    number = int(story.minutes * 60 / story.interval)
    for i in range(1, number + 1):
        # Requests do not know when somebody polls.
        at = i * story.interval + 0.003
        world.simulation.run_until(at)
        failed = next((reason for begin, end, reason in story.blind if begin <= at < end), None)
        yield Poll(at, Failure(reason=failed) if failed else world.server.poll())
