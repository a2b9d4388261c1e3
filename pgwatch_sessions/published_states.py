"""The published states of all servers. Each poll replaces the whole mapping, so that readers never wait."""

from collections.abc import Iterable, Mapping

from pgwatch_sessions.core.state import ServerState


class PublishedStates:
    """The states as of the last polls: one writer for each server, any number of readers."""

    def __init__(self, servers: Iterable[str]) -> None:
        """Start with an empty state of each server."""
        self._states: Mapping[str, ServerState] = {name: ServerState(server=name) for name in servers}

    def publish(self, state: ServerState) -> None:
        """Replace the state of one server."""
        self._states = {**self._states, state.server: state}

    def states(self) -> Mapping[str, ServerState]:
        """Return the states by server: the same object until the next poll of any server."""
        return self._states
