"""An open finding, with what is needed to continue it at the next poll."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding, LeakKind
from pgwatch_sessions.core.history import History, Track
from pgwatch_sessions.core.model import SessionId


class EndedMember(NamedTuple):
    """A session of a finding whose hold ended."""

    at: float
    #: How long it had been held when it was last seen.
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedFinding:
    """An open finding. Times are the server's."""

    finding: Finding
    #: The finding as it was last reported by an event.
    last_reported: Finding
    #: Its sessions, and what stays the same of each while it belongs to the finding.
    members: Mapping[SessionId, float]
    #: When the holds of all its sessions began, in order; only the latest are kept.
    starts: tuple[float, ...]
    #: The limit that its sessions are over, in seconds.
    limit: float
    #: Since when it has looked like a leak without a break; None if it does not.
    leak_since: float | None
    #: Since when it has had no session; None while it has any.
    empty_since: float | None
    #: When it was last judged critical.
    critical_at: float | None = None
    #: The holds that ended, one by one, within the growth window; only the latest are kept.
    ended: tuple[EndedMember, ...] = ()
    #: The longest hold that ended, in seconds.
    longest_ended: float = 0.0
    #: Whether its holds have ever come back.
    has_recurred: bool = False

    def held_members(self, history: History) -> dict[SessionId, float]:
        """Return the members that have not moved since they joined, or that are still in the same transaction."""
        tracks, kind = history.tracks, self.finding.key.kind
        return {
            identity: mark
            for identity, mark in self.members.items()
            if identity in tracks and mark_of(tracks[identity], kind) == mark
        }


def mark_of(track: Track, kind: LeakKind) -> float | None:
    """Return what stays the same of a session while it belongs to a finding: its moves, or its transaction."""
    if kind is LeakKind.TRANSACTION_KEPT:
        return track.transaction.began if track.transaction else None
    return track.moves
