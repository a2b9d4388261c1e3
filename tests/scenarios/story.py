"""A story: its clients, its events, and what is true about it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
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
    """A participant of a story."""

    def play(self, world: World) -> None:
        """Start, and schedule later events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One leak of a story. Its start, sessions and rate are recorded while the story is played."""

    client: Client
    #: None if the server does not show it.
    site: str | None
    kinds: frozenset[LeakKind] = frozenset({LeakKind.TRANSACTION_HELD})
    #: The severity that it must reach at least.
    severity: Severity = Severity.WARNING
    #: Seconds from the first leaked session to a finding, and from the second, or from that many, to a warning.
    found_within: float = 600.0
    warned_within: float = 300.0
    enough: int = 2
    #: The time of the story by which the warning must be there, instead.
    warned_by: float | None = None
    #: Seconds from the first leaked session to a critical finding. None: critical is neither required nor forbidden.
    critical_within: float | None = None
    #: Never critical: it ends by itself, and nothing runs out.
    calm: bool = False
    #: Its holds end and come back. It is one finding, also in the pauses.
    comes_back: bool = False
    #: Whether a rate must be reported, correct within a fifth.
    has_rate: bool = True
    #: Number of findings that may be opened for it.
    findings: int = 1


class Says(NamedTuple):
    """The right verdicts about a client (None: the server) in a part of the story."""

    client: Client | None
    begin: float
    end: float
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One story. Times are seconds from its beginning."""

    name: str
    family: str
    parts: tuple[Part, ...]
    minutes: float = 20.0
    leaks: tuple[Truth, ...] = ()
    server: Postgres = field(default_factory=Postgres)
    interval: float = 10.0
    policy: Policy = field(default_factory=Policy)
    #: Right verdicts, where they are not simply `ok` before the leak and `leaking` after its start.
    diagnosis: tuple[Says, ...] = ()
    #: (from, to, reason) of failing polls.
    blind: tuple[tuple[float, float, FailureReason], ...] = ()
    #: (time, seconds): the server's clock is set.
    clock_steps: tuple[tuple[float, float], ...] = ()
    #: (time, seconds): the server restarts.
    restarts: tuple[tuple[float, float], ...] = ()
    #: Times at which the monitor restarts and forgets everything.
    monitor_restarts: tuple[float, ...] = ()
    #: Clients that may get false warnings, because they look like a leak.
    excused: frozenset[Client] = frozenset()
    #: Whether the forecast is checked: growth towards a limit that no pool stops.
    forecast: bool = False
    #: (from, to) in which nothing grows any more, so that no limit may be forecast to be reached within the horizon.
    flat: tuple[tuple[float, float], ...] = ()
    #: Clients that are saturated as long as their requests wait for a connection, and ok when none does.
    queueing: frozenset[Client] = frozenset()
    #: When the monitor is started. Nothing is polled before.
    watched_from: float = 0.0
    #: What was drawn at random, for a person.
    drawn: str = ""

    @property
    def healthy(self) -> bool:
        """Whether nothing leaks."""
        return not self.leaks


class Poll(NamedTuple):
    """One poll: its time in the story, and its outcome."""

    at: float
    outcome: Snapshot | Failure

    @property
    def clock(self) -> float:
        """The monitor's own clock."""
        return EPOCH + self.at


def begin(story: Story, *, seed: int = 0) -> World:
    """Create the world of a story. Its name seeds its random numbers."""
    world = World(crc32(story.name.encode()) + seed, story.server)
    for when, by in story.clock_steps:
        world.simulation.at(when, partial(world.server.step_clock, by))
    for when, seconds in story.restarts:
        world.simulation.at(when, partial(world.server.restart, seconds=seconds))
    for part in story.parts:
        part.play(world)
    return world


def polls(story: Story, world: World) -> Iterator[Poll]:
    """Run the story, and yield a poll at each interval."""
    number = int(story.minutes * 60 / story.interval)
    for i in range(1, number + 1):
        # A small offset, because requests and polls do not coincide in reality.
        at = i * story.interval + 0.003
        if at < story.watched_from:
            continue
        world.simulation.run_until(at)
        failed = next((reason for begin, end, reason in story.blind if begin <= at < end), None)
        yield Poll(at, Failure(reason=failed) if failed else world.server.poll())
