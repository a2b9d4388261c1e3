"""The daemon's own judgement over polls of the past, by their clock; and what only a recording can show.

Between two polls of a recording the clock may jump: nobody looked for a while, segments stand in the wrong order, or
the time of day was set back. The judgement goes on as it would have; who reads it must know.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.recording import BadLine, RecordedPoll
from pgwatch_sessions.wording.events import event_fields, event_name

#: So many times the usual time between polls is a gap.
_GAP = 5.0
#: The usual time is the median of so many latest: a recording may go on at another pace.
_USUAL_OF = 7
_MIN_INTERVALS = 3
#: Each server keeps a state in memory; a recording of more is none of ours.
MAX_SERVERS = 1_000


class PollsMissing(NamedTuple):
    """Nobody looked for so many seconds."""

    seconds: float


class ClockSteppedBack(NamedTuple):
    """A poll is so many seconds older than the one before it."""

    seconds: float


class ServerRestarted(NamedTuple):
    """Every session is new."""


Happening = Event | PollsMissing | ClockSteppedBack | ServerRestarted


class Step(NamedTuple):
    """What one poll of a recording led to."""

    #: Seconds since the epoch.
    at: float
    state: ServerState
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """One server so far."""

    state: ServerState
    last_at: float | None = None
    #: The latest times between polls.
    intervals: tuple[float, ...] = field(default=())


def replay(polls: Iterable[RecordedPoll | BadLine], policy: Policy) -> Iterator[Step | BadLine]:
    """Yield what each poll leads to, in the order of the recording; bad lines pass through."""
    courses: dict[str, _Course] = {}
    for poll in polls:
        if isinstance(poll, BadLine):
            yield poll
            continue
        course = courses.get(poll.server)
        if course is None:
            if len(courses) >= MAX_SERVERS:
                yield BadLine(poll.number, f"more than {MAX_SERVERS} servers")
                continue
            course = _Course(state=ServerState(server=poll.server))
        courses[poll.server], step = _advance(course, poll, policy)
        yield step


def happening_fields(happening: Happening) -> tuple[str, dict[str, Any]]:
    """Return the name of what happened and its fields, fit for JSON."""
    match happening:
        case PollsMissing(seconds):
            return "polls_missing", {"seconds": round(seconds, 3)}
        case ClockSteppedBack(seconds):
            return "clock_stepped_back", {"seconds": round(seconds, 3)}
        case ServerRestarted():
            return "server_restarted", {}
        case _:
            return event_name(happening), event_fields(happening)


def _advance(course: _Course, poll: RecordedPoll, policy: Policy) -> tuple[_Course, Step]:
    state, events = advance(course.state, poll.outcome, policy=policy, at=poll.taken_at, duration=0.0)
    jumps: list[Happening] = []
    intervals = course.intervals
    if course.last_at is not None:
        interval = poll.taken_at - course.last_at
        if interval < 0:
            jumps.append(ClockSteppedBack(-interval))
        elif _is_gap(interval, intervals):
            jumps.append(PollsMissing(interval))
        intervals = (*intervals, abs(interval))[-_USUAL_OF:]
    if _restarted(course.state, poll):
        jumps.append(ServerRestarted())
    after = replace(course, state=state, last_at=poll.taken_at, intervals=intervals)
    return after, Step(poll.taken_at, state, (*jumps, *events))


def _is_gap(interval: float, intervals: tuple[float, ...]) -> bool:
    return len(intervals) >= _MIN_INTERVALS and interval > _GAP * median(intervals) > 0


def _restarted(before: ServerState, poll: RecordedPoll) -> bool:
    if isinstance(poll.outcome, Failure) or before.last_summary is None:
        return False
    known, now = before.last_summary.snapshot.server.started_at, poll.outcome.server.started_at
    return known is not None and now is not None and known != now
