"""The thresholds that sessions are judged by."""

from collections.abc import Iterable
from dataclasses import dataclass

from pgwatch_sessions.core.judging.configured_limits import ConfiguredLimit
from pgwatch_sessions.core.judging.maintenance_tools import KNOWN_TOOLS
from pgwatch_sessions.core.model import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Thresholds and their defaults. Times are in seconds."""

    #: How long a session may be held before it is a finding.
    hold_limit: float = 60.0
    #: Other limits, by application and site. The first that matches counts.
    hold_limits: tuple[ConfiguredLimit, ...] = ()
    #: The time over which growth and forecast are judged. A client without sessions is remembered as long.
    growth_window: float = 600.0
    #: A forecast nearer than this is critical.
    horizon: float = 3600.0
    #: How many clients, and how many databases, get metric labels of their own.
    max_clients: int = 100
    #: Application names, as shell patterns, of maintenance tools.
    tools: tuple[str, ...] = KNOWN_TOOLS

    def configured_limit(self, client: Client, sites: Iterable[str]) -> float | None:
        """Return the limit of a client's holds at a place with these names; None if `hold_limits` sets none."""
        return next(
            (
                each.limit
                for each in self.hold_limits
                if any(each.applies_to(client.application, site) for site in sites)
            ),
            None,
        )
