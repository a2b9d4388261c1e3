"""Limits on connections: of the server, of a role, of a database; and how many connections count against each."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from pgwatch_sessions.core.model import Client, LimitScope


class LimitId(NamedTuple):
    """Identifies a limit on connections."""

    scope: LimitScope
    #: The role's or database's name; for the server its configured name.
    name: str

    def applies_to(self, client: Client) -> bool:
        """Return whether the client's sessions count against this limit."""
        match self.scope:
            case LimitScope.SERVER:
                return True
            case LimitScope.ROLE:
                return client.user == self.name
            case LimitScope.DATABASE:
                return client.database == self.name


class SlotUsage(NamedTuple):
    """A limit on connections and how many connections count against it now."""

    scope: LimitScope
    name: str
    capacity: int
    used: int

    @property
    def limit(self) -> LimitId:
        """Which limit this is."""
        return LimitId(self.scope, self.name)


class NearestLimit(NamedTuple):
    """The limit that a client reaches first."""

    #: None when the client reaches no limit at the present growth.
    limit: LimitId | None
    #: Time until then; infinite when no limit is reached.
    seconds: float


def nearest_limit(exhaustion: Mapping[LimitId, float], client: Client) -> NearestLimit:
    """Return the limit that is reached first of those that apply to the client.

    `exhaustion` holds the seconds until each limit is reached; infinite where use does not grow.
    """
    seconds, limit = min(
        ((seconds, limit) for limit, seconds in exhaustion.items() if limit.applies_to(client)),
        default=(math.inf, None),
    )
    return NearestLimit(None if math.isinf(seconds) else limit, seconds)
