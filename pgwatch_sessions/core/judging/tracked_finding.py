"""An open finding, with what is needed to continue it at the next poll."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.history import History
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
    #: Its sessions, and how often each had moved when it joined the finding.
    members: Mapping[SessionId, int]
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

    def held_members(self, history: History) -> dict[SessionId, int]:
        """Return the members that have not moved since they joined."""
        tracks = history.tracks
        return {
            identity: moves
            for identity, moves in self.members.items()
            if identity in tracks and tracks[identity].moves == moves
        }
