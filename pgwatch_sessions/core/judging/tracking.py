"""Opens, changes and closes findings: each is opened once and closed once.

A session belongs to a finding until it moves or ends, even if the limit has been raised meanwhile. A finding without
sessions stays open for a while, so that a leak whose sessions are terminated and come back stays one finding.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pgwatch_sessions.core.events import LeakChanged, LeakClosed, LeakEvent, LeakOpened
from pgwatch_sessions.core.findings import Finding, FindingKey, FindingState, Harm, LeakKind, Severity
from pgwatch_sessions.core.history import Track
from pgwatch_sessions.core.judging.blocking import harm_of
from pgwatch_sessions.core.judging.detection import SEVERAL, VARIOUS_SITES, Suspicion, held_since, longest_first
from pgwatch_sessions.core.judging.filling import filled_limit
from pgwatch_sessions.core.judging.forecast import forecast, rate_per_second
from pgwatch_sessions.core.judging.matching import common_limit, match, session_ids, without_excused
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.judging.severity import severity_of
from pgwatch_sessions.core.judging.tracked_finding import TrackedFinding
from pgwatch_sessions.core.limits import LimitId, nearest_limit
from pgwatch_sessions.core.model import Client, Session
from pgwatch_sessions.core.statements import Statement

#: Starts that are kept of a finding, for its rate.
_MAX_STARTS = 200
#: A finding becomes a leak when it has looked like one for this part of the hold limit.
_CONFIRMED_AFTER = 0.4
#: A pause of this part of its limit does not end a leak.
_GRACE = 0.25
#: A leak without sessions stays open for this many hold limits: the application may have been restarted without a fix,
#: and its next leaked session is found one limit later.
_OPEN_WITHOUT_SESSIONS = 2.0
#: A finding stays critical for this many hold limits after it was last judged critical.
_CRITICAL_FOR = 5.0
#: A leak is growing while this part of all its sessions is still held. Below that, its sessions are being ended.
_STILL_HELD = 0.9
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
        _leak_rates([*continued, *opened]),
        context.usage,
        window=context.policy.growth_window,
    )
    after, events = [], list[LeakEvent]()
    for tracked, match_ in zip(continued, matches.continued, strict=True):
        judged = _judged(tracked, exhaustion, context)
        if match_.taken_over or _is_over(judged, context):
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


def _leak_rates(tracked: Iterable[TrackedFinding]) -> Mapping[Client, float]:
    """Return the sessions per second that each client leaks at present.

    Batches and single sessions do not count. Nor does a leak whose sessions are being ended, by time-outs or by the
    garbage collector: there, the trend of the used slots is the better forecast.
    """
    rates: dict[Client, float] = {}
    for finding in (each.finding for each in tracked):
        if finding.is_leak and len(finding.sessions) >= _STILL_HELD * max(1, finding.total):
            rates[finding.key.client] = rates.get(finding.key.client, 0.0) + finding.rate_per_minute / 60
    return rates


def _judged(tracked: TrackedFinding, exhaustion: Mapping[LimitId, float], context: PollContext) -> TrackedFinding:
    """Return the finding with its forecast and severity."""
    finding = tracked.finding
    seconds = nearest_limit(exhaustion, finding.key.client).seconds if finding.sessions else math.inf
    finding = replace(finding, exhaustion_seconds=seconds, closes_at=_closes_at(tracked, context))
    severity = severity_of(
        finding,
        limits_held=_longest_hold(finding, context) / tracked.limit,
        policy=context.policy,
    )
    if severity is Severity.CRITICAL:
        return replace(tracked, finding=replace(finding, severity=severity), critical_at=context.now)
    if finding.severity is Severity.CRITICAL and tracked.critical_at is not None:
        since_critical = context.now - tracked.critical_at
        if 0 <= since_critical < _CRITICAL_FOR * context.policy.hold_limit:
            severity = Severity.CRITICAL
    return replace(tracked, finding=replace(finding, severity=severity))


def _longest_hold(finding: Finding, context: PollContext) -> float:
    """Return how long the longest held session of a finding has been held, in seconds."""
    if not finding.sessions:
        return 0.0
    began = context.history.tracks[finding.sessions[0].id].known.since
    return context.now - began if began is not None else 0.0


def _closes_at(tracked: TrackedFinding, context: PollContext) -> float | None:
    limits = _OPEN_WITHOUT_SESSIONS if tracked.finding.is_leak else 1.0
    return None if tracked.empty_since is None else tracked.empty_since + limits * context.policy.hold_limit


def _is_over(tracked: TrackedFinding, context: PollContext) -> bool:
    closes_at = tracked.finding.closes_at
    return closes_at is not None and context.now >= closes_at


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
    joining = [] if suspicion is None else [each for each in suspicion.tracks if each.session.id not in members]
    starts = tuple(sorted((*tracked.starts, *(held_since(each) for each in joining))))[-_MAX_STARTS:]
    members = {**members, **{each.session.id: each.moves for each in joining}}
    continued = replace(
        tracked,
        members=members,
        starts=starts,
        limit=tracked.limit if suspicion is None else max(tracked.limit, suspicion.limit),
        leak_since=_leak_since(tracked, suspicion, context),
        empty_since=None if members else min(tracked.empty_since or context.now, context.now),
    )
    return replace(continued, finding=_described(continued, suspicion, len(joining), context))


def _leak_since(tracked: TrackedFinding, suspicion: Suspicion | None, context: PollContext) -> float | None:
    if suspicion is not None and suspicion.is_leak:
        return context.now if tracked.leak_since is None else min(tracked.leak_since, context.now)
    return tracked.leak_since if tracked.finding.is_leak else None


def _described(tracked: TrackedFinding, suspicion: Suspicion | None, joined: int, context: PollContext) -> Finding:
    """Return the finding as its sessions are now; `joined` sessions are new."""
    before = tracked.finding
    held = sorted((context.history.tracks[identity] for identity in tracked.members), key=longest_first)
    sessions = tuple(each.session for each in held)
    rate = rate_per_second(
        tracked.starts,
        now=context.now - tracked.limit,
        window=context.policy.growth_window,
        grace=_GRACE * tracked.limit,
    )
    harm = replace(
        harm_of(sessions, context.blocking),
        fills=filled_limit(
            before.key.client, sessions, context.slots, context.history, hold_limit=context.policy.hold_limit
        )
        if sessions
        else None,
    )
    key = _key(before, suspicion, tracked, sessions)
    return replace(
        before,
        key=key,
        write=before.write if before.total and key == before.key else _write_of(key, held),
        is_leak=_is_confirmed_leak(tracked, suspicion, harm, context),
        sessions=sessions,
        evidence=sessions or before.evidence,
        origins=tuple(sorted({session.client_addr for session in sessions if session.client_addr})) or before.origins,
        since=min(before.since, tracked.starts[0]),
        total=before.total + joined,
        rate_per_minute=60 * rate,
        harm=harm,
        configured_limit=common_limit(held, context.policy) if held else before.configured_limit,
    )


def _key(
    before: Finding, suspicion: Suspicion | None, tracked: TrackedFinding, sessions: Sequence[Session]
) -> FindingKey:
    """Return the finding's key. It changes only when none of its sessions shows the old site any more."""
    if suspicion is None or tracked.members.keys() - session_ids(suspicion):
        return before.key
    renamed = suspicion.key.kind is not before.key.kind or suspicion.key.site == VARIOUS_SITES
    if not renamed and any(session.statement.site == before.key.site for session in sessions):
        return before.key
    return suspicion.key


def _write_of(key: FindingKey, tracks: Iterable[Track]) -> Statement | None:
    """Return the write that names most of these sessions' place; None if none was seen, or if they have several."""
    writes = [write for each in tracks if (write := each.write)] if key.site != VARIOUS_SITES else []
    sites = [write.site for write in writes]
    return max(writes, key=lambda write: sites.count(write.site), default=None)


def _is_confirmed_leak(tracked: TrackedFinding, suspicion: Suspicion | None, harm: Harm, context: PollContext) -> bool:
    if tracked.finding.is_leak:
        return True
    first_poll_at = context.history.first_poll_at
    if tracked.leak_since is None or first_poll_at is None or tracked.finding.is_tool:
        return False
    if suspicion is not None and _is_judged_at_once(suspicion, harm):
        return True
    watched_long_enough = context.now - first_poll_at >= context.policy.hold_limit
    return watched_long_enough and context.now - tracked.leak_since >= _CONFIRMED_AFTER * context.policy.hold_limit


def _is_judged_at_once(suspicion: Suspicion, harm: Harm) -> bool:
    """Return whether one poll is enough: the starts are visible in it, or what looks like a leak does harm now."""
    harmful = suspicion.is_leak and len(suspicion.tracks) >= SEVERAL and (harm.blocked > 0 or harm.fills is not None)
    return suspicion.is_plain or (harmful and suspicion.key.kind is LeakKind.TRANSACTION_HELD)


def _is_notable(finding: Finding, reported: Finding) -> bool:
    """Return whether a finding differs so much from what was last reported that it is reported again."""
    if finding.state is FindingState.RECOVERING:
        return reported.state is not FindingState.RECOVERING
    return (
        (finding.key, finding.severity) != (reported.key, reported.severity)
        or _differs(len(finding.sessions), len(reported.sessions))
        or _differs(finding.rate_per_minute, reported.rate_per_minute)
        or (finding.harm.blocked > 0 and reported.harm.blocked == 0)
        # A forecast is reported again when it comes nearer, not when it recedes or is missing for a moment.
        or finding.exhaustion_seconds < (1 - _NOTABLE_CHANGE) * reported.exhaustion_seconds
    )


def _differs(now: float, before: float) -> bool:
    return abs(now - before) > _NOTABLE_CHANGE * before
