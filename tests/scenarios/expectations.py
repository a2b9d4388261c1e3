"""Which verdicts are right at which time, for each client and for the server."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pgwatch_sessions.core.findings import Severity, Verdict
from pgwatch_sessions.core.model import Client
from tests.scenarios.playing import Played
from tests.scenarios.scripts import Script
from tests.scenarios.services import Service
from tests.scenarios.story import Says, Story, Truth

#: Seconds in which nothing is known yet, and seconds that may pass until the end of a leak is noticed.
WARM_UP = 60.0
_OVER = 180.0
_MINUTE = 60.0
#: Holds surely come back if they began at so many times, so many hold limits apart, and over so many limits.
_RECURRING = 4
_APART = 2.0
_RECURRING_FOR = 6.0


class Expected(NamedTuple):
    """The right verdicts about a client (None: the server) from begin to end."""

    client: Client | None
    begin: float
    end: float
    verdicts: tuple[Verdict, ...]


def expectations(played: Played) -> tuple[Expected, ...]:
    """Return the right verdicts: those that the story gives, otherwise ok before and after a leak."""
    story = played.story
    named = [Expected(*says) for says in story.diagnosis]
    found: list[Expected] = []
    for client in (*clients_of(story), None):
        plain = _by_queue(played, client) if client in story.queueing else _plain(played, client)
        for each in plain:
            found += _without(each, [says for says in story.diagnosis if says.client == client])
    return (*named, *found)


def clients_of(story: Story) -> tuple[Client, ...]:
    """Return the clients of a story, without those whose names change."""
    parts = (part for part in story.parts if isinstance(part, Service | Script))
    return tuple(dict.fromkeys(part.client for part in parts if not getattr(part, "suffixed", False)))


def _plain(played: Played, client: Client | None) -> Iterator[Expected]:
    truths = [truth for truth in played.story.leaks if client is None or truth.client == client]
    if client is None and played.story.queueing:
        return  # the server may take over the verdict of the client whose requests wait, or not
    if not truths or not played.ledger:
        yield Expected(client, 0, float("inf"), (Verdict.OK,))
        return
    clients = {truth.client for truth in truths}
    leaked = sorted(entry.at for entry in played.ledger if entry.client in clients)
    if not leaked:
        yield Expected(client, 0, float("inf"), (Verdict.OK,))
        return
    found = min(
        max(leaked[0] + truth.found_within, warning_due(truth, leaked, hold_limit=played.story.policy.hold_limit))
        if truth.severity is not Severity.NOTICE
        else float("inf")
        for truth in truths
    )
    alive = [seen.at for seen in played.seen if clients & seen.leaking]
    over = max([*alive, leaked[-1]])
    yield Expected(client, 0, leaked[0], (Verdict.OK,))
    yield Expected(client, found, over, (Verdict.LEAKING,))
    yield Expected(client, over + _OVER, float("inf"), (Verdict.OK,))


def _by_queue(played: Played, client: Client | None) -> Iterator[Expected]:
    """Saturated after a minute in which requests waited at each poll, ok after three minutes in which none did."""
    minute = round(_MINUTE / played.story.interval)
    waited = [client in seen.queueing for seen in played.seen]
    for i, seen in enumerate(played.seen):
        if all(waited[max(0, i - minute) : i + 1]):
            verdicts: tuple[Verdict, ...] = (Verdict.SATURATED,)
        elif any(waited[max(0, i - 3 * minute) : i + 1]):
            verdicts = (Verdict.SATURATED, Verdict.OK)
        else:
            verdicts = (Verdict.OK,)
        yield Expected(client, seen.at, seen.at + played.story.interval / 2, verdicts)


def warning_due(truth: Truth, leaked: Sequence[float], *, hold_limit: float) -> float:
    """Return by when a leak, whose sessions began to be held at these times, needs a warning."""
    if truth.warned_by is not None:
        return truth.warned_by
    if truth.comes_back:
        return _recurs_at(leaked, hold_limit) + truth.warned_within
    return leaked[min(truth.enough, len(leaked)) - 1] + truth.warned_within


def _recurs_at(leaked: Sequence[float], limit: float) -> float:
    """Return when the last of those holds began that show that they come back; infinite if too few did.

    Three may be the rounds of a batch, and many in a few minutes may be one dependency that was slow once.
    """
    times: list[float] = []
    for time in leaked:
        if not times or time - times[-1] >= _APART * limit:
            times.append(time)
        if len(times) >= _RECURRING and times[-1] - times[0] >= _RECURRING_FOR * limit:
            return time
    return float("inf")


def _without(whole: Expected, holes: list[Says]) -> Iterator[Expected]:
    begin = whole.begin
    for hole in sorted(holes, key=lambda says: says.begin):
        if hole.begin > begin:
            yield whole._replace(begin=begin, end=min(hole.begin, whole.end))
        begin = max(begin, hole.end)
    if begin < whole.end:
        yield whole._replace(begin=begin)
