"""Play many stories, on all cores. A story contains functions, so processes exchange its name and its judgement."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from pgwatch_sessions.core.events import DiagnosisChanged, LeakChanged, LeakClosed, LeakOpened
from tests.scenarios.families import FAMILIES, draw_story
from tests.scenarios.judging import Judgement, judge
from tests.scenarios.playing import FindingEvent, Played, play
from tests.scenarios.stories import STORIES
from tests.scenarios.story import Story


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A story to be played."""

    name: str
    #: Seed for other random events in the same story.
    seed: int = 0
    interval: float | None = None
    hold_limit: float | None = None
    #: Whether its events are wanted as text.
    verbose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A judged story, and its events as text, if they were wanted."""

    judgement: Judgement
    lines: tuple[str, ...]


def random_names(number: int, seed: int) -> Iterator[str]:
    """Yield the names of this many random stories, of all families in turn."""
    families = tuple(FAMILIES)
    for i in range(number):
        yield f"{families[i % len(families)]} {seed}.{i}"


def results(orders: Iterable[Order], *, jobs: int | None = None) -> Iterator[Result]:
    """Play the stories in as many processes as there are cores, or in `jobs`. The results come in order."""
    if jobs == 1:
        yield from map(result, orders)
        return
    with ProcessPoolExecutor(jobs) as executor:
        yield from executor.map(result, orders)


def result(order: Order) -> Result:
    """Play one story, and judge it."""
    story = _story(order.name)
    if order.interval is not None:
        story = replace(story, interval=order.interval)
    if order.hold_limit is not None:
        story = replace(story, policy=replace(story.policy, hold_limit=order.hold_limit))
    played = play(story, seed=order.seed)
    return Result(judgement=judge(played), lines=tuple(_lines(played)) if order.verbose else ())


def _story(name: str) -> Story:
    known = next((story for story in STORIES if story.name == name), None)
    if known is not None:
        return known
    family, _, seed = name.rpartition(" ")
    return draw_story(family, seed)


def _lines(played: Played) -> Iterator[str]:
    yield f"== {played.story.name} ({'healthy' if played.story.healthy else 'leak'}) {played.story.drawn}"
    first = played.ledger[0].at if played.ledger else None
    yield f"   leaked: {len(played.ledger)} sessions" + (f", the first at {first:.0f} s" if first is not None else "")
    yield from (
        f"   limit of {scope} {name} reached at {at:.0f} s" for (scope, name), at in played.exhausted_at.items()
    )
    yield from (f"{at:7.0f} s  {_line(event)}" for at, event in played.events)


def _line(event: FindingEvent) -> str:
    match event:
        case DiagnosisChanged(diagnosis, before):
            who = diagnosis.client.application if diagnosis.client else "server"
            return f"diagnosed {who}: {before} -> {diagnosis.verdict} ({diagnosis.reason})"
        case LeakOpened(finding) | LeakChanged(finding) | LeakClosed(finding):
            client, kind, site = finding.key
            return (
                f"{type(event).__name__.lower():9} {finding.severity:8} {kind} {client.application} at {site!r}: "
                f"{len(finding.sessions)} of {finding.total} sessions, {finding.rate_per_minute:.2f}/min, "
                f"full in {finding.exhaustion_seconds:.0f} s, is_leak={finding.is_leak}, harm {finding.harm}"
            )
