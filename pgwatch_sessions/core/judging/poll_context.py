"""Inputs of one poll that are needed to judge findings and clients."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pgwatch_sessions.core.history import History, Track
from pgwatch_sessions.core.judging.blocking import Blocked, Blocking
from pgwatch_sessions.core.judging.forecast import UsageHistory
from pgwatch_sessions.core.judging.hold_limits import HoldLimits
from pgwatch_sessions.core.judging.maintenance_tools import is_maintenance_tool
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Client, SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class PollContext:
    """One successful poll of one server, and what was known before it."""

    #: The server's time of the poll.
    now: float
    history_before: History
    history: History
    blocking: Blocking
    #: Since when others have waited for sessions that are idle in transaction.
    blocked: Mapping[SessionId, Blocked] = field(default_factory=dict)
    slots: tuple[SlotUsage, ...]
    usage: UsageHistory
    policy: Policy
    #: How long sessions may be held, by what was known after the poll.
    limits: HoldLimits
    #: The sessions of each client.
    tracks: Mapping[Client, Sequence[Track]]

    def is_tool(self, client: Client) -> bool:
        """Return whether the client is a maintenance tool."""
        return is_maintenance_tool(client.application, self.policy.tools)


def tracks_by_client(tracks: Iterable[Track]) -> Mapping[Client, Sequence[Track]]:
    """Group sessions by their client."""
    grouped: dict[Client, list[Track]] = {}
    for track in tracks:
        grouped.setdefault(track.session.client, []).append(track)
    return grouped
