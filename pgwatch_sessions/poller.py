"""Looks at one server on schedule, publishes what was seen, and logs what changed."""

import logging
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.core.events import ClientsFolded, Event, PrivilegeMissing, ServerDown
from pgwatch_sessions.core.findings import Changed, Opened
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.telling import told

_LEVELS = {
    Opened: logging.WARNING,
    Changed: logging.WARNING,
    ServerDown: logging.ERROR,
    PrivilegeMissing: logging.WARNING,
    ClientsFolded: logging.WARNING,
}


class Poller:
    """One server's looks, one after the other, and the state that they lead to."""

    def __init__(
        self,
        state: ServerState,
        connection: HeldConnection,
        *,
        policy: Policy,
        publish: Callable[[ServerState], None],
        log: FilteringBoundLogger,
    ) -> None:
        """Begin from a state, usually one that has seen nothing."""
        #: When the last look ended, by time.monotonic; the beginning until there was one.
        self.looked_at = time.monotonic()
        self._state = state
        self._connection = connection
        self._policy = policy
        self._publish = publish
        self._log = log.bind(server=state.server)

    async def poll(self) -> None:
        """Look once and publish."""
        begun = time.monotonic()
        outcome = await self._connection.look()
        self.looked_at = time.monotonic()
        self._state, events = advance(
            self._state, outcome, policy=self._policy, at=time.time(), duration=self.looked_at - begun
        )
        self._publish(self._state)
        for event in events:
            self._tell(event)

    async def close(self) -> None:
        """Give the slot back."""
        await self._connection.close()

    def _tell(self, event: Event) -> None:
        name, fields = told(event)
        self._log.log(_LEVELS.get(type(event), logging.INFO), name, **fields)
