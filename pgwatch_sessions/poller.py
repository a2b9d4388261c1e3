"""Polls one server: publishes the state after each poll, logs the events, and records the poll if configured."""

import asyncio
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.logs import log_line
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.wording.event_lines import (
    RECORDING_RESUMED,
    event_line,
    is_said_by_another,
    recording_failed_line,
)
from pgwatch_sessions.wording.events import event_fields, event_name

#: Records the outcome of a poll of a server, with the daemon's time. It blocks, and raises OSError if it cannot write.
Record = Callable[[str, Snapshot | Failure, float], None]

#: If a write takes longer, polling continues without waiting for it.
_RECORDING_SECONDS = 2.0


class Poller:
    """Polls one server, one poll after the other, and holds the state after the last one."""

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
        """Start from this state, usually an empty one."""
        #: When the last poll ended, by time.monotonic. Before the first poll, when the poller was made.
        self.polled_at = time.monotonic()
        self._state = state
        self._connection = connection
        self._policy = policy
        self._publish = publish
        self._log = log.bind(server=state.server)
        self._record = record
        self._on_event = on_event
        self._write: asyncio.Task[None] | None = None
        self._recording_failed = False

    async def poll(self) -> None:
        """Poll once, then publish, log and record."""
        begun = time.monotonic()
        outcome = await self._connection.poll()
        self.polled_at, at = time.monotonic(), time.time()
        self._state, events = advance(self._state, outcome, policy=self._policy, at=at, duration=self.polled_at - begun)
        self._publish(self._state)
        polled_at = at if self._state.last_poll_at is None else self._state.last_poll_at
        for event in events:
            self._log_event(event, at=polled_at)
            if self._on_event is not None:
                self._on_event(event)
        if self._record:
            await self._record_poll(self._record, outcome, at)

    def _log_event(self, event: Event, *, at: float) -> None:
        line = event_line(event, at=at)
        log_line(self._log, event_name(event), line, event_fields(event), repeated=is_said_by_another(event))

    async def close(self) -> None:
        """Close the connection, which frees its slot, and wait a moment for a write that has not ended."""
        await self._connection.close()
        if self._write is not None:
            await asyncio.wait({self._write}, timeout=_RECORDING_SECONDS)

    async def _record_poll(self, record: Record, outcome: Snapshot | Failure, at: float) -> None:
        """Record a poll. A failing or slow disk is logged once and does not stop polling."""
        try:
            if self._write is not None and not self._write.done():
                raise TimeoutError("the previous poll is still being written")
            self._write = asyncio.create_task(asyncio.to_thread(record, self._state.server, outcome, at))
            self._write.add_done_callback(_retrieve_error)
            async with asyncio.timeout(_RECORDING_SECONDS):
                await asyncio.shield(self._write)  # a thread cannot be cancelled
        except OSError as error:
            if not self._recording_failed:
                reason = str(error) or "writing takes too long"
                log_line(self._log, "recording_failed", recording_failed_line(reason), {"error": reason})
            self._recording_failed = True
        else:
            if self._recording_failed:
                log_line(self._log, "recording_resumed", RECORDING_RESUMED)
            self._recording_failed = False


def _retrieve_error(task: "asyncio.Task[None]") -> None:
    """Retrieve the error of a write that nothing waits for any more, or asyncio would log it as never retrieved."""
    if not task.cancelled():
        task.exception()
