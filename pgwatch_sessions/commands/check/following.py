"""`check --follow`: polls until its end, and prints one line for each event at once, for people and for pipes."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from pgwatch_sessions.commands.check.client_filter import ClientFilter
from pgwatch_sessions.commands.check.polling import states
from pgwatch_sessions.core.events import DiagnosisChanged, Event, LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.recording.times import text_of
from pgwatch_sessions.shutdown import ended_by_signals
from pgwatch_sessions.terminal import laid_out, paint_for
from pgwatch_sessions.wording.amounts import counted, moment
from pgwatch_sessions.wording.event_lines import event_line, is_said_by_another
from pgwatch_sessions.wording.events import event_fields, event_name
from pgwatch_sessions.wording.labels import printable
from pgwatch_sessions.wording.lines import Line, Tone

#: Servers named in the first line.
_MAX_NAMED = 5


class Following:
    """Writes the lines, each at once."""

    def __init__(self, stream: TextIO, clients: ClientFilter, *, as_json: bool) -> None:
        """Write the events of the server, and those of these clients."""
        self._stream = stream
        self._paint = paint_for(stream)
        self._clients = clients
        self._as_json = as_json

    def begin(self, servers: Sequence[str], *, interval: float) -> None:
        """Write what is watched."""
        named = ", ".join(servers[:_MAX_NAMED]) if len(servers) <= _MAX_NAMED else counted(len(servers), "server")
        message = printable(f"watching {named}, a poll every {interval:g} s")
        at = time.time()
        if self._as_json:
            self._write_json(at, "started", {"servers": list(servers), "interval_seconds": interval}, message)
        else:
            self._write(at, Line("started", Tone.NOTE, message))

    def events(self, state: ServerState, events: Sequence[Event]) -> None:
        """Write the events of one poll."""
        at = time.time() if state.failure or state.last_poll_at is None else state.last_poll_at
        for event in events:
            client = _client_of(event)
            if client is not None and not self._clients.matches(client):
                continue
            line = event_line(event, at=at)
            if self._as_json:
                self._write_json(at, event_name(event), {"server": state.server, **event_fields(event)}, line.text)
            elif not is_said_by_another(event):
                self._write(at, line, server=state.server)

    def _write(self, at: float, line: Line, *, server: str = "") -> None:
        self._stream.write(laid_out(line, moment(at), self._paint, server=server) + "\n")
        self._stream.flush()

    def _write_json(self, at: float, name: str, fields: Mapping[str, Any], message: str) -> None:
        self._stream.write(json.dumps({"at": text_of(at), "event": name, "message": message, **fields}) + "\n")
        self._stream.flush()


async def follow_servers(
    connections: Mapping[str, HeldConnection],
    *,
    polls: int | None,
    interval: float,
    policy: Policy,
    following: Following,
) -> Sequence[ServerState]:
    """Return the last state of each server, after this many polls, or after SIGINT or SIGTERM."""
    last = {name: ServerState(server=name) for name in connections}

    async def follow(name: str, connection: HeldConnection) -> None:
        number = 0
        async with contextlib.aclosing(states(name, connection, interval=interval, policy=policy)) as polled:
            async for last[name], events in polled:
                following.events(last[name], events)
                number += 1
                if number == polls:
                    break

    following.begin(list(connections), interval=interval)
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with ended_by_signals(end):
        all_polls = asyncio.gather(*(follow(name, connection) for name, connection in connections.items()))
        try:
            awaited: set[asyncio.Future[Any]] = {all_polls, end}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            all_polls.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await all_polls
    return list(last.values())


def _client_of(event: Event) -> Client | None:
    """Return the client that the event is about; None if it is about the server."""
    match event:
        case LeakOpened(finding) | LeakChanged(finding) | LeakClosed(finding):
            return finding.key.client
        case DiagnosisChanged(diagnosis):
            return diagnosis.client
        case _:
            return None
