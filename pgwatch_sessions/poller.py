"""Polls one server: publishes the state after each poll, logs the events, and records the poll if configured."""

import asyncio
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.core.statements import Statement
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
RECORDING_SECONDS = 2.0


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
        """Start from this state, usually an empty one. `log` is bound to the server."""
        #: When the last poll ended, by time.monotonic. Before the first poll, when the poller was made.
        self.polled_at = time.monotonic()
        self._state = state
        self._connection = connection
        self._policy = policy
        self._publish = publish
        self._log = log
        self._record = record
        self._on_event = on_event
        self._polling: asyncio.Task[None] | None = None
        self._ended = False
        self._write: asyncio.Task[None] | None = None
        self._recording_failed = False

    def adjust(
        self, *, policy: Policy, record: Record | None, timeout: float, parse: Callable[[str | None], Statement]
    ) -> None:
        """Judge, record and connect in this way from the next poll on. The connection stays."""
        self._policy = policy
        self._record = record
        self._connection.adjust(timeout=timeout, parse=parse)

    async def reconnect(self, connection: HeldConnection) -> None:
        """Poll over this connection from now on. End the running poll, and close the former connection."""
        former, self._connection = self._connection, connection
        await self._cancel_poll()
        await former.close()

    def end(self) -> None:
        """Poll and publish nothing any more."""
        self._ended = True

    async def poll(self) -> None:
        """Poll once, then publish, log and record."""
        if self._ended:
            return
        self._polling = asyncio.current_task()
        try:
            await self._poll()
        finally:
            self._polling = None

    async def _poll(self) -> None:
        begun = time.monotonic()
        outcome = await self._connection.poll()
        if self._ended:
            return
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
        """End the running poll, close the connection, which frees its slot, and wait for the last write."""
        self.end()
        await self._cancel_poll()
        await self._connection.close()
        await self.written()

    async def written(self) -> None:
        """Wait a moment for a write that has not ended."""
        if self._write is not None:
            await asyncio.wait({self._write}, timeout=RECORDING_SECONDS)

    async def _cancel_poll(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})

    async def _record_poll(self, record: Record, outcome: Snapshot | Failure, at: float) -> None:
        """Record a poll. A failing or slow disk is logged once and does not stop polling."""
        try:
            if self._write is not None and not self._write.done():
                raise TimeoutError("the previous poll is still being written")
            self._write = asyncio.create_task(asyncio.to_thread(record, self._state.server, outcome, at))
            self._write.add_done_callback(_retrieve_error)
            async with asyncio.timeout(RECORDING_SECONDS):
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
