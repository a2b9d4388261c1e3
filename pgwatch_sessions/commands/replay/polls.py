"""Judges the polls of a recording as the daemon would have, by the recording's clock.

The time between two polls of a recording may jump: polls are missing, files were joined in the wrong order, or the
clock was set back. Judging goes on, and the jump is reported as an event.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.recording import BadLine, RecordedPoll
from pgwatch_sessions.wording.amounts import duration
from pgwatch_sessions.wording.event_lines import event_line
from pgwatch_sessions.wording.events import event_fields, event_name
from pgwatch_sessions.wording.lines import Line, Tone

#: Polls are missing if the time between two polls is this many times the usual one.
_GAP = 5.0
#: The usual time is the median of this many intervals. Only the latest count: a recording may change its interval.
_MAX_INTERVALS = 7
_MIN_INTERVALS = 3
#: Each server needs a state in memory. Polls of further servers are bad lines.
MAX_SERVERS = 1_000


class PollsMissing(NamedTuple):
    """There was no poll for this long."""

    seconds: float


class ClockSteppedBack(NamedTuple):
    """A poll is this much older than the one before it."""

    seconds: float


class ServerRestarted(NamedTuple):
    """The server was restarted since the last poll, so every session is new."""


ReplayEvent = Event | PollsMissing | ClockSteppedBack | ServerRestarted


class ReplayedPoll(NamedTuple):
    """One poll of a recording, judged."""

    #: Seconds since the epoch.
    at: float
    #: The state of the server after the poll.
    state: ServerState
    events: tuple[ReplayEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReplayedServer:
    """One server after its last poll so far."""

    state: ServerState
    last_at: float | None = None
    #: The latest times between two polls, in seconds.
    intervals: tuple[float, ...] = ()


def replay(polls: Iterable[RecordedPoll | BadLine], policy: Policy) -> Iterator[ReplayedPoll | BadLine]:
    """Judge each poll in the order of the recording. Bad lines are passed on."""
    servers: dict[str, _ReplayedServer] = {}
    for poll in polls:
        if isinstance(poll, BadLine):
            yield poll
            continue
        server = servers.get(poll.server)
        if server is None:
            if len(servers) >= MAX_SERVERS:
                yield BadLine(poll.number, f"more than {MAX_SERVERS} servers")
                continue
            server = _ReplayedServer(state=ServerState(server=poll.server))
        servers[poll.server], replayed = _judge(server, poll, policy)
        yield replayed


def replay_line(event: ReplayEvent, *, at: float) -> Line:
    """Return the line about an event. `at` is the time of its poll."""
    match event:
        case PollsMissing(seconds):
            return Line("no polls", Tone.WARN, f"no poll for {duration(seconds)}")
        case ClockSteppedBack(seconds):
            return Line("clock", Tone.WARN, f"the clock stepped back by {duration(seconds)}")
        case ServerRestarted():
            return Line("restart", Tone.WARN, "the server was restarted, so every session is new")
        case _:
            return event_line(event, at=at)


def replay_event_fields(event: ReplayEvent) -> tuple[str, dict[str, Any]]:
    """Return the event's name, and its fields as JSON values."""
    match event:
        case PollsMissing(seconds):
            return "polls_missing", {"seconds": round(seconds, 3)}
        case ClockSteppedBack(seconds):
            return "clock_stepped_back", {"seconds": round(seconds, 3)}
        case ServerRestarted():
            return "server_restarted", {}
        case _:
            return event_name(event), event_fields(event)


def _judge(server: _ReplayedServer, poll: RecordedPoll, policy: Policy) -> tuple[_ReplayedServer, ReplayedPoll]:
    state, events = advance(server.state, poll.outcome, policy=policy, at=poll.taken_at, duration=0.0)
    jumps: list[ReplayEvent] = []
    intervals = server.intervals
    if server.last_at is not None:
        interval = poll.taken_at - server.last_at
        if interval < 0:
            jumps.append(ClockSteppedBack(-interval))
        elif _is_gap(interval, intervals):
            jumps.append(PollsMissing(interval))
        intervals = (*intervals, abs(interval))[-_MAX_INTERVALS:]
    if _was_restarted(server.state, poll):
        jumps.append(ServerRestarted())
    after = replace(server, state=state, last_at=poll.taken_at, intervals=intervals)
    return after, ReplayedPoll(poll.taken_at, state, (*jumps, *events))


def _is_gap(interval: float, intervals: tuple[float, ...]) -> bool:
    return len(intervals) >= _MIN_INTERVALS and interval > _GAP * median(intervals) > 0


def _was_restarted(before: ServerState, poll: RecordedPoll) -> bool:
    if isinstance(poll.outcome, Failure) or before.last_summary is None:
        return False
    known, now = before.last_summary.snapshot.server.started_at, poll.outcome.server.started_at
    return known is not None and now is not None and known != now
