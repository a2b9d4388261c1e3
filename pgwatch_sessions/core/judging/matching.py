"""Matches the suspicions of one poll with the open findings. A session belongs to one finding only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pgwatch_sessions.core.history import History, Track
from pgwatch_sessions.core.judging.detection import Suspicion, configured_limit_of, held_since
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.tracked_finding import TrackedFinding
from pgwatch_sessions.core.model import SessionId


class Continuation(NamedTuple):
    """An open finding and what continues it."""

    tracked: TrackedFinding
    #: None if nothing new was found for it; its sessions may still be held.
    suspicion: Suspicion | None
    #: Another finding has taken over all of its sessions, so it closes.
    taken_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Which suspicion belongs to which open finding."""

    #: One for each open finding, in the same order.
    continued: tuple[Continuation, ...]
    #: Suspicions that belong to no open finding, without sessions that do.
    new: tuple[Suspicion, ...]


def match(open_findings: Sequence[TrackedFinding], suspicions: Iterable[Suspicion], history: History) -> Matches:
    """Give each suspicion to the open finding with the same key, else to the one that shares most sessions with it."""
    held = [tracked.held_members(history).keys() for tracked in open_findings]
    places = {tracked.finding.key: place for place, tracked in enumerate(open_findings)}
    given: dict[int, Suspicion] = {}
    unmatched = []
    for suspicion in suspicions:
        place = places.get(suspicion.key)
        if place is None:
            unmatched.append(suspicion)
        else:
            given[place] = suspicion
    new = []
    for suspicion in sorted(unmatched, key=lambda each: each.key):
        place = _place_sharing_most(suspicion, open_findings, held, given)
        if place is None:
            new.append(suspicion)
        else:
            given[place] = suspicion
    taken_over = {
        place
        for place, ids in enumerate(held)
        if ids and place not in given and any(ids <= session_ids(suspicion) for suspicion in given.values())
    }
    owners = {identity: place for place, ids in enumerate(held) if place not in taken_over for identity in ids}
    new = [_without_owned_by_others(suspicion, owners, None) for suspicion in new]
    return Matches(
        continued=tuple(
            Continuation(
                tracked,
                _without_owned_by_others(given[place], owners, place) if place in given else None,
                place in taken_over,
            )
            for place, tracked in enumerate(open_findings)
        ),
        new=tuple(suspicion for suspicion in new if suspicion.tracks),
    )


def session_ids(suspicion: Suspicion) -> set[SessionId]:
    """Return the identities of its sessions."""
    return {each.session.id for each in suspicion.tracks}


def _place_sharing_most(
    suspicion: Suspicion,
    open_findings: Sequence[TrackedFinding],
    held: Sequence[Iterable[SessionId]],
    given: Mapping[int, Suspicion],
) -> int | None:
    """Return the place of the open finding, of those without a suspicion, that shares most sessions with this one."""
    ids, client = session_ids(suspicion), suspicion.key.client
    shared = {
        place: len(ids.intersection(held[place]))
        for place, tracked in enumerate(open_findings)
        if place not in given and tracked.finding.key.client == client
    }
    places = [place for place, number in shared.items() if number]
    return max(places, key=lambda place: (shared[place], open_findings[place].finding.key, place), default=None)


def _without_owned_by_others(suspicion: Suspicion, owners: Mapping[SessionId, int], place: int | None) -> Suspicion:
    """Leave out the sessions that belong to a finding at another place."""
    own = [
        (track, start)
        for track, start in zip(suspicion.tracks, suspicion.starts, strict=True)
        if owners.get(track.session.id, place) == place
    ]
    return replace(suspicion, tracks=tuple(track for track, _ in own), starts=tuple(start for _, start in own))


def without_excused(tracked: TrackedFinding, history: History, policy: Policy) -> TrackedFinding:
    """Leave out sessions that the configuration allows to be held: it was reloaded since they joined the finding."""
    if not policy.hold_limits:
        return tracked
    now = history.last_poll_at or 0.0
    tracks = [history.tracks[identity] for identity in tracked.held_members(history)]
    excused = [each for each in tracks if now - held_since(each) <= (configured_limit_of(each, policy) or 0.0)]
    if not excused:
        return tracked
    left_out = {each.session.id for each in excused}
    members = {identity: moves for identity, moves in tracked.members.items() if identity not in left_out}
    return replace(
        tracked,
        members=members,
        finding=replace(tracked.finding, configured_limit=common_limit(excused, policy)),
    )


def common_limit(tracks: Iterable[Track], policy: Policy) -> float | None:
    """Return the limit that the configuration sets for all of these sessions."""
    limits = {configured_limit_of(each, policy) for each in tracks}
    return limits.pop() if len(limits) == 1 else None
