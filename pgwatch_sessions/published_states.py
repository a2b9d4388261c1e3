"""The published states of all servers. Each poll replaces the whole mapping, so that readers never wait."""

from collections.abc import Iterable, Mapping

from pgwatch_sessions.core.state import ServerState


class PublishedStates:
    """The states as of the last polls: one writer for each server, any number of readers."""

    def __init__(self, servers: Iterable[str]) -> None:
        """Start with an empty state of each server."""
        self._states: Mapping[str, ServerState] = {}
        self.set_servers(servers)

    def set_servers(self, servers: Iterable[str]) -> None:
        """Publish exactly these servers, in this order: with the state so far, or an empty one if they are new."""
        before = self._states
        self._states = {name: before.get(name) or ServerState(server=name) for name in servers}

    def publish(self, state: ServerState) -> None:
        """Replace the state of one server."""
        self._states = {**self._states, state.server: state}

    def republish(self) -> None:
        """Publish the same states once more, so that whatever was rendered from them is rendered again."""
        self._states = dict(self._states)

    def states(self) -> Mapping[str, ServerState]:
        """Return the states by server: the same object until the next poll of any server, or another change."""
        return self._states
