"""What the sources of servers have found, from one refresh to the next.

A source that fails changes nothing. A server that is missing is kept until a second refresh finds it missing, too: a
file may be written in two steps, and an inventory may restart.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from pgwatch_sessions.discovery.reading import read_source
from pgwatch_sessions.discovery.target_groups import FoundTarget, SourceError
from pgwatch_sessions.disk_writes import DiskThread
from pgwatch_sessions.settings.model import ServerSettings, ServersFromSettings
from pgwatch_sessions.settings.templates import filled

#: How long a read is waited for.
_READ_SECONDS = 10.0
#: A server is let go when so many refreshes have not found it.
_MISSING_TWICE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """What one source has found."""

    #: The servers by name, those that are missing for the first time included.
    servers: Mapping[str, ServerSettings] = field(default_factory=dict)
    #: How many refreshes have not found a server.
    missing: Mapping[str, int] = field(default_factory=dict)
    #: Why the last refresh failed; None if it did not.
    failure: str | None = None
    #: How many refreshes have failed.
    failures: int = 0
    #: Targets that cannot be used, and why, one line each.
    problems: tuple[str, ...] = ()

    def after(self, servers: Mapping[str, ServerSettings], problems: tuple[str, ...]) -> "SourceState":
        """Return the state after a refresh that found these servers."""
        gone = self.servers.keys() - servers.keys()
        missing = {name: times for name in gone if (times := self.missing.get(name, 0) + 1) < _MISSING_TWICE}
        kept = {name: server for name, server in self.servers.items() if name in missing}
        found = {**kept, **servers}
        return SourceState(servers=found, missing=missing, failures=self.failures, problems=problems)


class Discovery:
    """The servers of all sources."""

    def __init__(self, sources: Sequence[ServersFromSettings], listed: Iterable[ServerSettings]) -> None:
        """Begin with no server found. `listed` are the servers that the configuration lists: their names are taken."""
        self._listed = {server.name for server in listed}
        #: What each source has found, in the order of the configuration.
        self.states: dict[ServersFromSettings, SourceState] = {source: SourceState() for source in sources}
        self._reads = {source: _Reads(source) for source in self.states}

    @property
    def servers(self) -> tuple[ServerSettings, ...]:
        """All servers found."""
        return tuple(server for state in self.states.values() for server in state.servers.values())

    def end(self) -> None:
        """Read no source any more."""
        for reads in self._reads.values():
            reads.end()

    async def refresh(self, source: ServersFromSettings) -> SourceState:
        """Read one source again, and return its new state."""
        try:
            targets = await self._reads[source].next()
        except SourceError as error:
            before = self.states[source]
            after = replace(before, failure=str(error), failures=before.failures + 1)
        else:
            others = (state.servers for other, state in self.states.items() if other != source)
            servers, problems = servers_of(source, targets, taken=self._listed.union(*others))
            after = self.states[source].after(servers, problems)
        self.states[source] = after
        return after


class _Reads:
    """The reads of one source, one after the other. A disk or a server that hangs holds up nothing else."""

    def __init__(self, source: ServersFromSettings) -> None:
        self._source = source
        self._thread = DiskThread()
        self._read: asyncio.Future[tuple[FoundTarget, ...]] | None = None

    def end(self) -> None:
        """End the thread after the present read."""
        self._thread.end()

    async def next(self) -> tuple[FoundTarget, ...]:
        """Read the source, or go on waiting for a read that has not ended. Raises SourceError."""
        if self._read is None or self._read.done():
            self._read = self._thread.run(lambda: read_source(self._source))
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await asyncio.shield(self._read)
        except TimeoutError:
            raise SourceError(f"{self._source.place} has not answered within {_READ_SECONDS:g} s") from None


def found_now(
    sources: Iterable[ServersFromSettings], *, listed: Iterable[ServerSettings]
) -> tuple[ServerSettings, ...]:
    """Return the servers that all sources find when they are read once. Raises SourceError if one cannot be read."""
    found = {server.name: server for server in listed}
    names = set(found)
    for source in sources:
        found |= servers_of(source, read_source(source), taken=found)[0]
    return tuple(server for name, server in found.items() if name not in names)


def servers_of(
    source: ServersFromSettings, targets: Iterable[FoundTarget], *, taken: Iterable[str] = ()
) -> tuple[Mapping[str, ServerSettings], tuple[str, ...]]:
    """Return the servers by name, and why other targets are none. The first with a name has it."""
    servers: dict[str, ServerSettings] = {}
    problems = []
    names = set(taken)
    for target in targets:
        try:
            server = _server_of(source, target)
        except ValidationError as error:
            problems.append(f"{target.address}: {'; '.join(map(_reason, error.errors(include_url=False)))}")
        except ValueError as error:
            problems.append(f"{target.address}: {error}")
        else:
            if server.name in names:
                problems.append(f"{target.address}: duplicate server name {server.name}; the first one has it")
            else:
                names.add(server.name)
                servers[server.name] = server
    return servers, tuple(problems)


def _server_of(source: ServersFromSettings, target: FoundTarget) -> ServerSettings:
    labels, address = target.labels, target.address
    return ServerSettings.model_validate(
        {
            "name": filled(source.name, labels, address),
            "dsn": filled(source.dsn, labels, address, in_uri=True),
            "password_file": source.password_file,
        }
    )


def _reason(error: Mapping[str, object]) -> str:
    """Return the field and what is wrong with it, without its value."""
    context = error.get("ctx")
    cause = context.get("error") if isinstance(context, dict) else None
    (*_, name) = error["loc"] if isinstance(error["loc"], tuple) and error["loc"] else ("server",)
    return f"{name} {cause or 'is invalid'}"
