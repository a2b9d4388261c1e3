"""How to judge what is seen."""

from dataclasses import dataclass

from pgwatch_sessions.core.tools import KNOWN_TOOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Thresholds; times are seconds."""

    #: How long a session may be held before it is a finding.
    hold_limit: float = 60.0
    #: Over which growth and forecast are judged, and how long a client without sessions is remembered.
    growth_window: float = 600.0
    #: A forecast nearer than this is critical.
    horizon: float = 3600.0
    #: Clients, and databases, that get labels of their own.
    max_clients: int = 100
    #: Shell patterns of application names that are judged by their harm only.
    tools: tuple[str, ...] = KNOWN_TOOLS
