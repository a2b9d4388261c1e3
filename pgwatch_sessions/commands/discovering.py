"""Finds servers while the daemon runs: reads each source again and again, and logs what has changed."""

import asyncio
import contextlib
import time
from collections.abc import Mapping

import structlog

from pgwatch_sessions.discovery.discovery import Discovery, SourceState
from pgwatch_sessions.logs import log_line
from pgwatch_sessions.metrics.daemon_metrics import SourceFigures
from pgwatch_sessions.settings.model import ServerSettings, ServersFromSettings, Settings
from pgwatch_sessions.wording.event_lines import (
    DISCOVERY_RESUMED,
    discovery_failed_line,
    servers_found_line,
    targets_refused_line,
)

#: How long the start waits for the sources.
_START_SECONDS = 2.0


class Discovering:
    """The servers that the sources of the settings find."""

    def __init__(self, settings: Settings) -> None:
        self._log = structlog.get_logger()
        self._discovery = Discovery(settings.servers_from, settings.servers)
        #: When each source is read next, by time.monotonic. At once if it is not in here.
        self._due: dict[ServersFromSettings, float] = {}

    @property
    def servers(self) -> tuple[ServerSettings, ...]:
        """The servers found so far."""
        return self._discovery.servers

    def figures(self) -> Mapping[str, SourceFigures]:
        """Return what each source has found, for the metrics."""
        states = self._discovery.states
        return {source.place: SourceFigures(len(state.servers), state.failures) for source, state in states.items()}

    def adjust(self, settings: Settings) -> None:
        """Go on with these sources. Those that stay keep what they have found."""
        former, self._discovery = self._discovery, Discovery(settings.servers_from, settings.servers)
        stay = former.states.keys() & self._discovery.states.keys()
        self._discovery.states |= {source: former.states[source] for source in stay}
        self._due = {source: due for source, due in self._due.items() if source in stay}
        former.end()

    async def begin(self) -> None:
        """Read every source, but do not wait long: the daemon watches the servers that are listed meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await self.refresh()

    async def refresh(self) -> bool:
        """Read the sources that are due. Return whether there was one."""
        discovery, now = self._discovery, time.monotonic()
        due = [source for source in discovery.states if self._due.get(source, now) <= now]
        await asyncio.gather(*(self._refresh(discovery, source) for source in due))
        return bool(due)

    async def _refresh(self, discovery: Discovery, source: ServersFromSettings) -> None:
        before = discovery.states[source]
        self._tell(source, before, await discovery.refresh(source))
        self._due[source] = time.monotonic() + source.refresh_interval

    def _tell(self, source: ServersFromSettings, before: SourceState, after: SourceState) -> None:
        log = self._log.bind(source=source.place)
        if after.failure is not None and after.failure != before.failure:
            log_line(log, "discovery_failed", discovery_failed_line(after.failure), {"error": after.failure})
        if after.failure is None and before.failure is not None:
            log_line(log, "discovery_resumed", DISCOVERY_RESUMED)
        if after.problems and after.problems != before.problems:
            line = targets_refused_line(source.place, after.problems)
            log_line(log, "targets_refused", line, {"targets": list(after.problems)})
        added = sorted(after.servers.keys() - before.servers.keys())
        removed = sorted(before.servers.keys() - after.servers.keys())
        if added or removed:
            log_line(log, "servers_found", servers_found_line(added, removed), {"added": added, "removed": removed})
