"""The published states of all servers: replaced whole at each poll, so that readers never wait."""

from collections.abc import Iterable, Mapping

from pgwatch_sessions.core.state import ServerState


class PublishedStates:
    """One writer a server, any number of readers."""

    def __init__(self, servers: Iterable[str]) -> None:
        """Begin with nothing seen of any server."""
        self._states: Mapping[str, ServerState] = {name: ServerState(server=name) for name in servers}

    def publish(self, state: ServerState) -> None:
        """Replace what is known of one server."""
        self._states = {**self._states, state.server: state}

    def states(self) -> Mapping[str, ServerState]:
        """Return what is known now: the same object until the next poll any server."""
        return self._states
