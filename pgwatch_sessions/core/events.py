"""Everything that a look can change, as values: the shell logs and counts them."""

from typing import NamedTuple

from pgwatch_sessions.core.findings import Changed, Closed, Diagnosed, Opened
from pgwatch_sessions.core.model import Failure


class ServerUp(NamedTuple):
    """A look succeeded, the first one or after a failure."""


class ServerDown(NamedTuple):
    """Looks began to fail, or fail for another reason."""

    failure: Failure


class PrivilegeMissing(NamedTuple):
    """Sessions are hidden from the monitoring role."""

    role: str | None
    hidden_sessions: int


class ClientsFolded(NamedTuple):
    """There are more clients than labels."""

    folded_clients: int


FindingEvent = Opened | Changed | Closed
Event = ServerUp | ServerDown | PrivilegeMissing | ClientsFolded | FindingEvent | Diagnosed
