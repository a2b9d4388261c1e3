"""Opens, changes and closes findings: each is opened once and closed once.

A session belongs to a finding until it moves or ends, even if the limit has been raised meanwhile. A finding without
sessions stays open for a while, so that a leak whose sessions are terminated and come back stays one finding.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pgwatch_sessions.core.events import LeakChanged, LeakClosed, LeakEvent, LeakOpened
from pgwatch_sessions.core.findings import Finding, FindingState, Harm, LeakKind, Severity
from pgwatch_sessions.core.history import Track
from pgwatch_sessions.core.judging.closing import closes_at, is_over
from pgwatch_sessions.core.judging.describing import described, net_rate
from pgwatch_sessions.core.judging.detection import SEVERAL, Suspicion, held_since
from pgwatch_sessions.core.judging.forecast import forecast
from pgwatch_sessions.core.judging.matching import match, without_excused
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.judging.severity import severity_of
from pgwatch_sessions.core.judging.tracked_finding import EndedMember, TrackedFinding, mark_of
from pgwatch_sessions.core.limits import LimitId, nearest_limit
from pgwatch_sessions.core.model import Client, SessionId

#: Starts that are kept of a finding, for its rate.
_MAX_STARTS = 200
#: A finding stays critical for this many hold limits after it was last judged critical.
_CRITICAL_FOR = 5.0
#: A number has changed if it differs by more than a fifth from what was last reported.
_NOTABLE_CHANGE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingResult:
    """The findings after a poll."""

    tracked: tuple[TrackedFinding, ...]
    events: tuple[LeakEvent, ...]
    #: Seconds until each limit is reached.
    exhaustion: Mapping[LimitId, float]


def track(
    open_findings: Sequence[TrackedFinding], suspicions: Iterable[Suspicion], context: PollContext
) -> TrackingResult:
    """Continue the open findings with the suspicions of a poll, and open new findings for the rest.

    The forecast needs the sessions of all findings, and the severity needs the forecast. So first each session is given
    to a finding, then the forecast is made, then each finding is judged.
    """
    history = context.history
    matches = match([without_excused(each, history, context.policy) for each in open_findings], suspicions, history)
    continued = [_continue(each.tracked, each.suspicion, context) for each in matches.continued]
    opened = [_continue(_without_sessions(suspicion, context), suspicion, context) for suspicion in matches.new]
    exhaustion = forecast(
        context.slots,
        _leak_rates([*continued, *opened], context),
        context.usage,
        window=context.policy.growth_window,
    )
    after, events = [], list[LeakEvent]()
    for tracked, match_ in zip(continued, matches.continued, strict=True):
        judged = _judged(tracked, exhaustion, context)
        if match_.taken_over or is_over(judged, context):
            events.append(LeakClosed(judged.finding))
        elif _is_notable(judged.finding, judged.last_reported):
            events.append(LeakChanged(judged.finding, judged.last_reported))
            after.append(replace(judged, last_reported=judged.finding))
        else:
            after.append(judged)
    for judged in (_judged(each, exhaustion, context) for each in opened):
        if judged.finding.severity is not Severity.NOTICE or not judged.finding.is_tool:
            events.append(LeakOpened(judged.finding))
            after.append(replace(judged, last_reported=judged.finding))
    return TrackingResult(tracked=tuple(after), events=tuple(events), exhaustion=exhaustion)


def _leak_rates(tracked: Iterable[TrackedFinding], context: PollContext) -> Mapping[Client, float]:
    """Return the sessions per second that each client leaks at present.

    Batches and single sessions do not count. Nor do holds that come back.
    """
    rates: dict[Client, float] = {}
    for each in tracked:
        if each.finding.is_leak:
            client = each.finding.key.client
            rates[client] = rates.get(client, 0.0) + net_rate(each, context, steady=True)
    return rates


def _judged(tracked: TrackedFinding, exhaustion: Mapping[LimitId, float], context: PollContext) -> TrackedFinding:
    """Return the finding with its forecast and severity."""
    finding = tracked.finding
    limit, seconds = nearest_limit(exhaustion, finding.key.client) if finding.sessions else (None, math.inf)
    finding = replace(finding, exhaustion_seconds=seconds, closes_at=closes_at(tracked, context))
    severity = severity_of(
        finding,
        limits_held=_longest_hold(finding, context) / tracked.limit,
        growing_for=context.now - finding.since,
        slots_grow=limit is not None
        and context.usage.keeps_up(
            limit, finding.rate_per_minute / 60, since=finding.since, window=context.policy.growth_window
        ),
        policy=context.policy,
    )
    critical_at = context.now if severity is Severity.CRITICAL else tracked.critical_at
    if finding.severity is Severity.CRITICAL and _is_recent(critical_at, context):
        severity = Severity.CRITICAL
    if severity is not finding.severity:
        finding = replace(finding, severity=severity)
    return replace(tracked, finding=finding, critical_at=critical_at)


def _is_recent(critical_at: float | None, context: PollContext) -> bool:
    return critical_at is not None and 0 <= context.now - critical_at < _CRITICAL_FOR * context.policy.hold_limit


def _longest_hold(finding: Finding, context: PollContext) -> float:
    """Return how long the longest held session of a finding has been held, in seconds."""
    if not finding.sessions:
        return 0.0
    longest = context.history.tracks[finding.sessions[0].id]
    if finding.key.kind is LeakKind.TRANSACTION_KEPT and longest.transaction is not None:
        return context.now - longest.transaction.began
    return max(0.0, context.now - (held_since(longest) or context.now))


def _without_sessions(suspicion: Suspicion, context: PollContext) -> TrackedFinding:
    """Return a new finding that has no session yet."""
    finding = Finding(
        key=suspicion.key,
        opened_as=suspicion.key,
        severity=Severity.NOTICE,
        is_leak=False,
        is_tool=context.is_tool(suspicion.key.client),
        sessions=(),
        evidence=(),
        origins=(),
        since=suspicion.starts[0],
        opened_at=context.now,
        total=0,
        rate_per_minute=0.0,
        exhaustion_seconds=math.inf,
        harm=Harm(slots=0),
    )
    return TrackedFinding(
        finding=finding,
        last_reported=finding,
        members={},
        starts=(),
        limit=suspicion.limit,
        leak_since=None,
        empty_since=None,
    )


def _continue(tracked: TrackedFinding, suspicion: Suspicion | None, context: PollContext) -> TrackedFinding:
    """Return the finding with the sessions that it has after this poll."""
    members = tracked.held_members(context.history)
    ended = _ended_one_by_one(tracked, members, context)
    joining = [] if suspicion is None else _joining(suspicion, members)
    starts = tuple(sorted((*tracked.starts, *(start for _, start in joining))))[-_MAX_STARTS:]
    marks = ((each.session.id, mark_of(each, tracked.finding.key.kind)) for each, _ in joining)
    members = {**members, **{identity: mark for identity, mark in marks if mark is not None}}
    continued = replace(
        tracked,
        members=members,
        starts=starts,
        limit=tracked.limit if suspicion is None else max(tracked.limit, suspicion.limit),
        leak_since=_leak_since(tracked, suspicion, context),
        empty_since=None if members else min(tracked.empty_since or context.now, context.now),
        ended=ended,
        longest_ended=max([tracked.longest_ended, *(each.seconds for each in ended)]),
    )
    finding = described(continued, suspicion, len(joining), context)
    return replace(continued, finding=finding, has_recurred=tracked.has_recurred or finding.recurrence is not None)


def _ended_one_by_one(
    tracked: TrackedFinding, members: Mapping[SessionId, float], context: PollContext
) -> tuple[EndedMember, ...]:
    """Return the holds that ended by themselves. Several that end at one poll, all that were left, were terminated."""
    gone = tracked.members.keys() - members.keys()
    known = [each for each in tracked.ended if context.now - context.policy.growth_window < each.at <= context.now]
    if not members and len(gone) >= SEVERAL:
        return tuple(known)
    lengths = (_seen_for(context.history_before.tracks[identity], context) for identity in gone)
    return (*known, *(EndedMember(context.now, seconds) for seconds in lengths))[-_MAX_STARTS:]


def _seen_for(ended: Track, context: PollContext) -> float:
    """Return how long a session had been held when it was last seen."""
    last = ended.last_seen.at if ended.last_seen else context.history_before.last_poll_at
    return max(0.0, (last or 0.0) - held_since(ended))


def _joining(suspicion: Suspicion, members: Collection[SessionId]) -> list[tuple[Track, float]]:
    """Return the sessions that are not members yet, each with when it began to be held."""
    pairs = zip(suspicion.tracks, suspicion.starts, strict=True)
    return [(track, start) for track, start in pairs if track.session.id not in members]


def _leak_since(tracked: TrackedFinding, suspicion: Suspicion | None, context: PollContext) -> float | None:
    if suspicion is not None and suspicion.is_leak:
        return context.now if tracked.leak_since is None else min(tracked.leak_since, context.now)
    return tracked.leak_since if tracked.finding.is_leak and tracked.finding.recurrence is None else None


def _is_notable(finding: Finding, reported: Finding) -> bool:
    """Return whether a finding differs so much from what was last reported that it is reported again."""
    if (finding.key, finding.severity) != (reported.key, reported.severity):
        return True
    if finding.recurrence is not None and reported.recurrence is not None:
        return finding.harm.blocked > 0 and reported.harm.blocked == 0  # its holds come and go
    if finding.state is FindingState.RECOVERING:
        return reported.state is not FindingState.RECOVERING
    return (
        (finding.state is FindingState.UNSEEN) != (reported.state is FindingState.UNSEEN)
        or _differs(len(finding.sessions), len(reported.sessions))
        or _differs(finding.rate_per_minute, reported.rate_per_minute)
        or (finding.harm.blocked > 0 and reported.harm.blocked == 0)
        # A forecast is reported again when it comes nearer, not when it recedes or is missing for a moment.
        or finding.exhaustion_seconds < (1 - _NOTABLE_CHANGE) * reported.exhaustion_seconds
    )


def _differs(now: float, before: float) -> bool:
    return abs(now - before) > _NOTABLE_CHANGE * before
