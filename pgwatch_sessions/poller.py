"""Polls one server on schedule, publishes what was seen, logs what changed, and records it if asked to."""

import asyncio
import logging
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.core.events import ClientsFolded, Event, LeakChanged, LeakOpened, PrivilegeMissing, ServerDown
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.wording.events import event_fields, event_name

#: Records what a poll a server gave, at the daemon's time; blocks, and raises OSError when the system refuses.
Record = Callable[[str, Snapshot | Failure, float], None]

#: A disk that takes longer has the polls go on without it.
_RECORDING_SECONDS = 2.0

_LEVELS = {
    LeakOpened: logging.WARNING,
    LeakChanged: logging.WARNING,
    ServerDown: logging.ERROR,
    PrivilegeMissing: logging.WARNING,
    ClientsFolded: logging.WARNING,
}


class Poller:
    """One server's polls, one after the other, and the state that they lead to."""

    def __init__(
        self,
        state: ServerState,
        connection: HeldConnection,
        *,
        policy: Policy,
        publish: Callable[[ServerState], None],
        log: FilteringBoundLogger,
        record: Record | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Begin from a state, usually one that has seen nothing."""
        #: When the last poll ended, by time.monotonic; the beginning until there was one.
        self.polled_at = time.monotonic()
        self._state = state
        self._connection = connection
        self._policy = policy
        self._publish = publish
        self._log = log.bind(server=state.server)
        self._record = record
        self._on_event = on_event
        self._writing: asyncio.Task[None] | None = None
        self._recording_fails = False

    async def poll(self) -> None:
        """Poll once and publish."""
        begun = time.monotonic()
        outcome = await self._connection.poll()
        self.polled_at, at = time.monotonic(), time.time()
        self._state, events = advance(self._state, outcome, policy=self._policy, at=at, duration=self.polled_at - begun)
        self._publish(self._state)
        for event in events:
            self._tell(event)
        if self._record:
            await self._keep(self._record, outcome, at)

    async def close(self) -> None:
        """Give the slot back."""
        await self._connection.close()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=_RECORDING_SECONDS)

    async def _keep(self, record: Record, outcome: Snapshot | Failure, at: float) -> None:
        """Record a poll. What the disk does to us is logged once, and does not keep the polls from going on."""
        try:
            if self._writing is not None and not self._writing.done():
                raise TimeoutError("an earlier poll is still being written")
            self._writing = asyncio.create_task(asyncio.to_thread(record, self._state.server, outcome, at))
            self._writing.add_done_callback(_seen)
            async with asyncio.timeout(_RECORDING_SECONDS):
                await asyncio.shield(self._writing)  # a thread that writes cannot be called back
        except OSError as error:
            if not self._recording_fails:
                self._log.error("recording_failed", error=str(error) or "the disk does not answer")
            self._recording_fails = True
        else:
            if self._recording_fails:
                self._log.info("recording_resumed")
            self._recording_fails = False

    def _tell(self, event: Event) -> None:
        self._log.log(_LEVELS.get(type(event), logging.INFO), event_name(event), **event_fields(event))
        if self._on_event is not None:
            self._on_event(event)


def _seen(task: "asyncio.Task[None]") -> None:
    """Keep asyncio from complaining of an error that came too late for anybody to wait for."""
    if not task.cancelled():
        task.exception()
