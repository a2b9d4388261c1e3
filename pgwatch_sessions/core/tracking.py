"""The lives of findings: opened once, changed, closed once.

A session belongs to a finding until it moves or is gone, whatever the limit has become meanwhile. A finding without
sessions stays for a while, so that a leak that is being drained and goes on is one finding.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pgwatch_sessions.core.detection import VARIOUS, Suspicion, held_since, longest_first
from pgwatch_sessions.core.events import FindingEvent
from pgwatch_sessions.core.findings import Changed, Closed, Finding, FindingKey, Harm, Opened, Severity
from pgwatch_sessions.core.forecast import Limit, Slots, rate_per_second
from pgwatch_sessions.core.harm import Blocking, harm_of
from pgwatch_sessions.core.history import History
from pgwatch_sessions.core.model import Client, Session, SessionId
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.severity import judge

#: Starts remembered of a finding, for its rate.
_MAX_STARTS = 200
#: A leak is one when it has looked like it for this part of the hold limit.
_CONFIRM = 0.4
#: A leak that paused for this part of its limit may go on.
_GRACE = 0.25
#: A leak without sessions may have been restarted and not mended: the next session is found a limit later.
_PATIENCE = 2.0
#: A finding is critical no more when nothing was for so many limits.
_CALM = 5.0
#: A leak is not drained while so much of all that it had is there.
_UNDRAINED = 0.9
#: What counts as moved.
_FIFTH = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A finding while it is open, and what is needed to carry it on."""

    finding: Finding
    #: As it was last told.
    told: Finding
    #: Its sessions, with the number of moves each had when it was found.
    members: Mapping[SessionId, int]
    #: When the holds of all its sessions began, in order; the latest of them.
    starts: tuple[float, ...]
    limit: float
    #: Since when it has looked like a leak without a break.
    leak_since: float | None
    #: Since when it has had no session.
    empty_since: float | None
    #: When it was last judged critical.
    critical_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a finding is judged in: one look at one server."""

    now: float
    history: History
    policy: Policy
    blocking: Blocking
    slots: tuple[Slots, ...]
    #: Returns the seconds until each limit is reached, from the sessions a second that each client leaks.
    forecast: Callable[[Mapping[Client, float]], Mapping[Limit, float]]
    is_tool: Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """What comes of a look."""

    tracked: tuple[Tracked, ...]
    events: tuple[FindingEvent, ...]
    #: Seconds until each limit is reached.
    exhaustion: Mapping[Limit, float]


def track(open_findings: Sequence[Tracked], suspicions: Iterable[Suspicion], around: Surroundings) -> Tracking:
    """Carry the open findings on with what looks leaked now, and open the new ones.

    First who belongs to which finding, then, from what leaks now, the forecast, and by that how much each matters.
    """
    matched, new, taken_over = _match(open_findings, suspicions, around.history)
    carried = [_carry_on(tracked, suspicion, around) for tracked, suspicion in matched]
    opened = [_carry_on(_begin(suspicion, around), suspicion, around) for suspicion in new]
    exhaustion = around.forecast(_leaking([*carried, *opened]))
    after, events = [], list[FindingEvent]()
    for place, each in enumerate(_judged(each, exhaustion, around) for each in carried):
        if place in taken_over or _is_over(each, around):
            events.append(Closed(each.finding))
        elif _worth_telling(each.finding, each.told):
            events.append(Changed(each.finding, each.told))
            after.append(replace(each, told=each.finding))
        else:
            after.append(each)
    for each in (_judged(each, exhaustion, around) for each in opened):
        if each.finding.severity is not Severity.NOTICE or not around.is_tool(each.finding.key.client.application):
            events.append(Opened(each.finding))
            after.append(replace(each, told=each.finding))
    return Tracking(tracked=tuple(after), events=tuple(events), exhaustion=exhaustion)


def _leaking(tracked: Iterable[Tracked]) -> Mapping[Client, float]:
    """Return the sessions a second that each client leaks at present; batches and single sessions do not count.

    Nor does what is being drained, by time-outs or by the garbage collector: that grows by the trend of the slots.
    """
    leaking: dict[Client, float] = {}
    for finding in (each.finding for each in tracked):
        if finding.is_leak and len(finding.sessions) >= _UNDRAINED * max(1, finding.total):
            leaking[finding.key.client] = leaking.get(finding.key.client, 0.0) + finding.rate_per_minute / 60
    return leaking


def _judged(tracked: Tracked, exhaustion: Mapping[Limit, float], around: Surroundings) -> Tracked:
    sessions = tracked.finding.sessions
    began = around.history.tracks[sessions[0].id].known[1] if sessions else None
    held = around.now - began if began is not None else 0.0
    finding = judge(
        tracked.finding,
        limits_held=held / tracked.limit,
        slots=around.slots,
        exhaustion=exhaustion,
        policy=around.policy,
    )
    if finding.severity is Severity.CRITICAL:
        return replace(tracked, finding=finding, critical_at=around.now)
    calm = around.now - (tracked.critical_at if tracked.critical_at is not None else -math.inf)
    if tracked.finding.severity is Severity.CRITICAL and 0 <= calm < _CALM * around.policy.hold_limit:
        finding = replace(finding, severity=Severity.CRITICAL)
    return replace(tracked, finding=finding)


def _match(
    open_findings: Sequence[Tracked], suspicions: Iterable[Suspicion], history: History
) -> tuple[list[tuple[Tracked, Suspicion | None]], list[Suspicion], set[int]]:
    """Give each suspicion to the open finding of its key, else to one that shares sessions.

    A session belongs to one finding. Returns the findings with what continues them, new suspicions, and the places of
    the findings that a wider one has taken over.
    """
    held = [_still_held(tracked, history).keys() for tracked in open_findings]
    by_key = {tracked.finding.key: place for place, tracked in enumerate(open_findings)}
    given: dict[int, Suspicion] = {}
    unmatched = []
    for suspicion in suspicions:
        place = by_key.get(suspicion.key)
        if place is None:
            unmatched.append(suspicion)
        else:
            given[place] = suspicion
    left = []
    for suspicion in sorted(unmatched, key=lambda each: each.key):
        ids, client = _ids(suspicion), suspicion.key.client
        sharing = [
            (len(ids & held[place]), tracked.finding.key, place)
            for place, tracked in enumerate(open_findings)
            if place not in given and tracked.finding.key.client == client and ids & held[place]
        ]
        if sharing:
            given[max(sharing)[-1]] = suspicion
        else:
            left.append(suspicion)
    taken_over = {
        place
        for place, ids in enumerate(held)
        if ids and place not in given and any(ids <= _ids(suspicion) for suspicion in given.values())
    }
    owner = {identity: place for place, ids in enumerate(held) if place not in taken_over for identity in ids}
    matched = [
        (tracked, _without(given[place], owner, place) if place in given else None)
        for place, tracked in enumerate(open_findings)
    ]
    new = [_without(suspicion, owner, None) for suspicion in left]
    return matched, [suspicion for suspicion in new if suspicion.tracks], taken_over


def _without(suspicion: Suspicion, owner: Mapping[SessionId, int], place: int | None) -> Suspicion:
    """Leave out the sessions that belong to another finding."""
    tracks = tuple(each for each in suspicion.tracks if owner.get(each.session.id, place) == place)
    return replace(suspicion, tracks=tracks, starts=tuple(map(held_since, tracks)))


def _is_over(carried: Tracked, around: Surroundings) -> bool:
    patience = (_PATIENCE if carried.finding.is_leak else 1.0) * around.policy.hold_limit
    return carried.empty_since is not None and around.now - carried.empty_since >= patience


def _begin(suspicion: Suspicion, around: Surroundings) -> Tracked:
    """Return a finding that has no session yet."""
    finding = Finding(
        key=suspicion.key,
        opened_as=suspicion.key,
        severity=Severity.NOTICE,
        is_leak=False,
        sessions=(),
        origins=(),
        since=suspicion.starts[0],
        opened_at=around.now,
        total=0,
        rate_per_minute=0.0,
        exhaustion_seconds=math.inf,
        harm=Harm(slots=0),
    )
    return Tracked(
        finding=finding,
        told=finding,
        members={},
        starts=(),
        limit=suspicion.limit,
        leak_since=None,
        empty_since=None,
    )


def _carry_on(tracked: Tracked, suspicion: Suspicion | None, around: Surroundings) -> Tracked:
    members = _still_held(tracked, around.history)
    joining = [] if suspicion is None else [each for each in suspicion.tracks if each.session.id not in members]
    starts = tuple(sorted((*tracked.starts, *(held_since(each) for each in joining))))[-_MAX_STARTS:]
    members = {**members, **{each.session.id: each.moves for each in joining}}
    limit = tracked.limit if suspicion is None else max(tracked.limit, suspicion.limit)
    leak_since = _leak_since(tracked, suspicion, around)
    carried = replace(
        tracked,
        members=members,
        starts=starts,
        limit=limit,
        leak_since=leak_since,
        empty_since=None if members else min(tracked.empty_since or around.now, around.now),
    )
    return replace(carried, finding=_described(carried, suspicion, len(joining), around))


def _still_held(tracked: Tracked, history: History) -> dict[SessionId, int]:
    tracks = history.tracks
    return {
        identity: moves
        for identity, moves in tracked.members.items()
        if identity in tracks and tracks[identity].moves == moves
    }


def _leak_since(tracked: Tracked, suspicion: Suspicion | None, around: Surroundings) -> float | None:
    if suspicion is not None and suspicion.is_leak:
        return around.now if tracked.leak_since is None else min(tracked.leak_since, around.now)
    return tracked.leak_since if tracked.finding.is_leak else None


def _described(carried: Tracked, suspicion: Suspicion | None, joined: int, around: Surroundings) -> Finding:
    """Work out the finding from its sessions as they are now."""
    before = carried.finding
    held = sorted((around.history.tracks[identity] for identity in carried.members), key=longest_first)
    sessions = tuple(each.session for each in held)
    key = _key(before, suspicion, carried, sessions)
    return replace(
        before,
        key=key,
        is_leak=_confirmed(carried, around),
        sessions=sessions,
        origins=tuple(sorted({session.client_addr for session in sessions if session.client_addr})) or before.origins,
        since=min(before.since, carried.starts[0]),
        total=before.total + joined,
        rate_per_minute=60 * _rate(carried.starts, carried.limit, around.now, around.policy.growth_window),
        harm=harm_of(sessions, around.blocking),
    )


def _key(before: Finding, suspicion: Suspicion | None, carried: Tracked, sessions: Sequence[Session]) -> FindingKey:
    """Return what the finding is called: a new name only when nothing shows the old one any more."""
    if suspicion is None or carried.members.keys() - _ids(suspicion):
        return before.key
    renamed = suspicion.key.kind is not before.key.kind or suspicion.key.site == VARIOUS
    if not renamed and any(session.statement.site == before.key.site for session in sessions):
        return before.key
    return suspicion.key


def _ids(suspicion: Suspicion) -> set[SessionId]:
    return {each.session.id for each in suspicion.tracks}


def _confirmed(carried: Tracked, around: Surroundings) -> bool:
    if carried.finding.is_leak:
        return True
    began = around.history.began_at
    if carried.leak_since is None or began is None or around.is_tool(carried.finding.key.client.application):
        return False
    watched_long_enough = around.now - began >= around.policy.hold_limit
    return watched_long_enough and around.now - carried.leak_since >= _CONFIRM * around.policy.hold_limit


def _rate(starts: Sequence[float], limit: float, now: float, window: float) -> float:
    return rate_per_second(starts, now=now - limit, window=window, grace=_GRACE * limit)


def _worth_telling(finding: Finding, told: Finding) -> bool:
    if (finding.key, finding.severity) != (told.key, told.severity):
        return True
    return any(
        _moved(now, before)
        for now, before in (
            (len(finding.sessions), len(told.sessions)),
            (finding.rate_per_minute, told.rate_per_minute),
        )
    ) or _nears(finding.exhaustion_seconds, told.exhaustion_seconds)


def _nears(now: float, before: float) -> bool:
    """Tell whether a forecast has come nearer; one that recedes, or is lost for a moment, is no news."""
    return now < (1 - _FIFTH) * before


def _moved(now: float, before: float) -> bool:
    return abs(now - before) > _FIFTH * before
