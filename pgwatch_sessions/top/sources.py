"""Where the live view reads from: the servers themselves, or the API of a running daemon."""

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.top.daemon_api import DaemonApi, SourceError
from pgwatch_sessions.top.view import ClientId, Document, View, view_of
from pgwatch_sessions.web import json_api

#: Sessions of a client that are listed.
_MAX_SESSIONS = 200


class Source(Protocol):
    """Returns views, the one newer than the other."""

    async def view(self, opened: ClientId | None) -> View:
        """Return what is known now, with the sessions of this client. Raises SourceError."""

    async def close(self) -> None:
        """Free what the source holds."""


class PolledServers:
    """Polls the servers over held connections, and judges each poll as the daemon does."""

    def __init__(self, connections: Mapping[str, HeldConnection], policy: Policy, *, patience: float) -> None:
        """`patience` is how long a view waits for polls, in seconds. A server that takes longer delays no other."""
        self._connections = connections
        self._policy = policy
        self._patience = patience
        self._states = {name: ServerState(server=name) for name in connections}
        self._polls: dict[str, asyncio.Task[None]] = {}

    async def view(self, opened: ClientId | None) -> View:
        """Poll every server whose last poll has ended, and return what is known then."""
        for name in self._connections:
            if name not in self._polls:
                self._polls[name] = asyncio.create_task(self._poll(name))
        await asyncio.wait(self._polls.values(), timeout=self._patience)
        for name, poll in list(self._polls.items()):
            if poll.done():
                del self._polls[name]
                poll.result()  # raises what is a fault of ours
        whole = json_api.Selection()
        return view_of(
            json_api.diagnosis(self._states, whole),
            json_api.leaks(self._states, whole),
            opened=opened,
            sessions=self._sessions(opened) if opened else None,
        )

    async def close(self) -> None:
        """End the polls, and close the connections, which frees their slots."""
        for poll in self._polls.values():
            poll.cancel()
        await asyncio.gather(*self._polls.values(), return_exceptions=True)
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))

    async def _poll(self, name: str) -> None:
        begun = time.monotonic()
        outcome = await self._connections[name].poll()
        duration = time.monotonic() - begun
        self._states[name], _ = advance(
            self._states[name], outcome, policy=self._policy, at=time.time(), duration=duration
        )

    def _sessions(self, opened: ClientId) -> Document:
        return json_api.sessions(
            self._states, json_api.Selection(opened.server, opened.client.application, _MAX_SESSIONS)
        )


class RunningDaemon:
    """Reads the documents of a running daemon."""

    def __init__(self, api: DaemonApi) -> None:
        self._api = api

    async def view(self, opened: ClientId | None) -> View:
        """Fetch the documents. SourceError if the daemon does not answer, or answers something else."""
        requests: dict[str, dict[str, str]] = {"diagnosis": {}, "leaks": {}}
        if opened:
            requests["sessions"] = {
                "server": opened.server,
                "application": opened.client.application,
                "limit": str(_MAX_SESSIONS),
            }
        documents = await asyncio.to_thread(self._api.documents, requests)
        try:
            return view_of(
                documents["diagnosis"], documents["leaks"], opened=opened, sessions=documents.get("sessions")
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(
                f"{self._api.url} answers documents of another form; is it pgwatch-sessions of this version?"
            ) from error

    async def close(self) -> None:
        """Do nothing: each request has a connection of its own."""
