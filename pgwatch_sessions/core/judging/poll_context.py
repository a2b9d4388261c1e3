"""Inputs of one poll that are needed to judge findings and clients."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgwatch_sessions.core.history import History
from pgwatch_sessions.core.judging.blocking import Blocked, Blocking
from pgwatch_sessions.core.judging.forecast import UsageHistory
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

    def is_tool(self, client: Client) -> bool:
        """Return whether the client is a maintenance tool."""
        return is_maintenance_tool(client.application, self.policy.tools)
