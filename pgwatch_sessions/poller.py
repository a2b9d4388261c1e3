"""Polls one server: publishes the state after each poll, logs the events, and writes poll and state if configured."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.disk_writes import LAST_WRITES_SECONDS, DiskWrites, Outcomes
from pgwatch_sessions.logs import log_line, stack_of
from pgwatch_sessions.memory.saved_state import Written, is_worth_a_write, written
from pgwatch_sessions.memory.state_file import StateFile
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.wording.event_lines import (
    ANSWER_NOT_UNDERSTOOD,
    RECORDING_RESUMED,
    STATE_RESUMED,
    STATEMENT_TEXTS_LEFT_OUT,
    STATEMENT_TEXTS_READ_AGAIN,
    event_line,
    is_said_by_another,
    recording_failed_line,
    state_failed_line,
)
from pgwatch_sessions.wording.events import event_fields, event_name

#: Begins to record the outcome of a poll of a server, with the daemon's time. OSError if it cannot be written.
Record = Callable[[str, Snapshot | Failure, float], "asyncio.Future[None]"]

_RECORDING = Outcomes("recording_failed", recording_failed_line, "recording_resumed", RECORDING_RESUMED)
_KEEPING = Outcomes("state_failed", state_failed_line, "state_resumed", STATE_RESUMED)

_TEXTS_LEFT_OUT = "statement_texts_left_out", STATEMENT_TEXTS_LEFT_OUT
_TEXTS_READ_AGAIN = "statement_texts_read_again", STATEMENT_TEXTS_READ_AGAIN
#: So many places of answers that we do not understand are logged for each server.
_MOST_SURPRISES = 20


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
        state_file: StateFile | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Start from this state: an empty one, or what `state_file` holds. `log` is bound to the server."""
        #: When the last poll ended, by time.monotonic. Before the first poll, when the poller was made.
        self.polled_at = time.monotonic()
        self._state = state
        self._connection = connection
        self._policy = policy
        self._publish = publish
        self._log = log
        self._record = record
        self._on_event = on_event
        self._former_connects = 0
        self._polling: asyncio.Task[None] | None = None
        self._ended = False
        self._recording = DiskWrites(_RECORDING, log)
        #: The places in the code where an answer was not understood.
        self._surprises: set[str] = set()
        self._keeping = DiskWrites(_KEEPING, log)
        self._state_file = state_file
        #: What the file holds; None if that is not known.
        self._written: Written | None = None

    @property
    def reconnects(self) -> int:
        """How often the connection was opened again."""
        return max(0, self._former_connects + self._connection.connects - 1)

    def adjust(
        self,
        *,
        policy: Policy,
        record: Record | None,
        state_file: StateFile | None,
        timeout: float,
        parse: Callable[[str | None], Statement],
    ) -> None:
        """Judge, record, keep the state and connect in this way from the next poll on. The connection stays."""
        self._policy = policy
        self._record = record
        if state_file != self._state_file:
            self._state_file, self._written = state_file, None
        self._connection.adjust(timeout=timeout, parse=parse)

    async def reconnect(self, connection: HeldConnection) -> None:
        """Poll over this connection from now on. End the running poll, and close the former connection."""
        former, self._connection = self._connection, connection
        self._former_connects += former.connects
        await self._cancel_poll()
        await former.close()

    def end(self) -> None:
        """Poll and publish nothing any more."""
        self._ended = True

    async def poll(self) -> None:
        """Poll once, then publish, log, record, and keep the state."""
        if self._ended:
            return
        self._polling = asyncio.current_task()
        try:
            await self._poll()
        except Exception:
            # An error in the program, which ends it. The next start must not run into it again with the same state.
            await self._forget()
            raise
        finally:
            self._polling = None

    async def _poll(self) -> None:
        begun = time.monotonic()
        read_texts = self._connection.reads_texts
        outcome = await self._connection.poll()
        if self._ended:
            return
        if self._connection.reads_texts != read_texts:
            log_line(self._log, *(_TEXTS_LEFT_OUT if read_texts else _TEXTS_READ_AGAIN))
        self._log_surprise(self._connection.surprise)
        self.polled_at, at = time.monotonic(), time.time()
        self._state, events = advance(self._state, outcome, policy=self._policy, at=at, duration=self.polled_at - begun)
        self._publish(self._state)
        polled_at = at if self._state.last_poll_at is None else self._state.last_poll_at
        for event in events:
            self._log_event(event, at=polled_at)
            if self._on_event is not None:
                self._on_event(event)
        record = self._record
        if record and not await self._recording.run(lambda: record(self._state.server, outcome, at)):
            # Published with the next poll.
            self._state = replace(self._state, recording_failures=self._state.recording_failures + 1)
        if self._state_file is not None and is_worth_a_write(self._written, self._state):
            await self._keep()

    async def _keep(self) -> None:
        state, file = self._state, self._state_file
        if file is not None and await self._keeping.run(lambda: file.disk.run(lambda: file.write(state))):
            self._written = written(state)

    async def _forget(self) -> None:
        file, self._state_file = self._state_file, None
        if file is not None:
            await asyncio.wait({file.disk.run(file.remove)}, timeout=LAST_WRITES_SECONDS)

    def _log_surprise(self, error: Exception | None) -> None:
        """Log where an answer that we do not understand was read: once for each place, and not without end."""
        where = stack_of(error) if error else None
        if where is None or where in self._surprises or len(self._surprises) == _MOST_SURPRISES:
            return
        self._surprises.add(where)
        fields = {"error": type(error).__name__, "stack": where}
        log_line(self._log, "answer_not_understood", ANSWER_NOT_UNDERSTOOD, fields, repeated=True)

    def _log_event(self, event: Event, *, at: float) -> None:
        line = event_line(event, at=at)
        log_line(self._log, event_name(event), line, event_fields(event), repeated=is_said_by_another(event))

    async def close(self) -> None:
        """End the running poll, close the connection, which frees its slot, and wait a moment for the last state."""
        self.end()
        await self._cancel_poll()
        await asyncio.gather(self._connection.close(), self._keep_last())

    async def _keep_last(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITES_SECONDS):
                await self._keeping.ended()
                if self._state.last_poll_at is not None and self._written != written(self._state):
                    await self._keep()

    async def _cancel_poll(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})
