"""Reads the configuration again while the daemon runs: on SIGHUP, and with `reload: watch` when a file has changed."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import structlog

from pgwatch_sessions.commands.discovering import Discovering
from pgwatch_sessions.commands.wiring import watch_of
from pgwatch_sessions.daemon import Running
from pgwatch_sessions.disk_writes import LAST_WRITES_SECONDS, DiskThread
from pgwatch_sessions.logs import configure_logs, log_line
from pgwatch_sessions.pollers import Watch
from pgwatch_sessions.settings.changes import changes_between, in_force
from pgwatch_sessions.settings.errors import SettingsError
from pgwatch_sessions.settings.exposed_files import secret_files
from pgwatch_sessions.settings.loading import LoadedSettings
from pgwatch_sessions.settings.stamps import Stamp
from pgwatch_sessions.wording.event_lines import config_refused_line, config_reloaded_line

#: Between two checks whether a file has changed. A change is taken in at the first check that finds no further one,
#: because a file that is still being written may be valid, too: an empty one has every default.
_CHECK_SECONDS = 2.0
#: Between two looks whether a source of servers is due.
_SOURCES_SECONDS = 1.0


class Configuration:
    """The settings in force, and where they are read from."""

    def __init__(self, load: Callable[[], LoadedSettings], stamps: Callable[[], Mapping[Path, Stamp]]) -> None:
        """Load the settings for the first time; raise SettingsError if they cannot be used.

        `stamps` returns the stamps of the files that `load` reads.
        """
        self._load = load
        self._stamps = stamps
        self._loaded_stamps = self._seen_stamps = stamps()
        self._errors: tuple[str, ...] = ()
        self._disk = DiskThread()
        self._loading: asyncio.Future[LoadedSettings] | None = None
        self._log = structlog.get_logger()
        loaded = load()
        self.settings = loaded.settings
        #: What the user should know about the first settings, one line each.
        self.notices = loaded.notices
        #: The files with secrets of the first settings, each with what it holds.
        self.secret_files = tuple(secret_files(loaded.settings, loaded.places, os.environ))
        self.discovering = Discovering(self.settings)
        #: One change after the other is applied.
        self._applying = asyncio.Lock()

    @property
    def watch(self) -> Watch:
        """What to watch: the servers that are listed, and those that were found."""
        return watch_of(self.settings, found=self.discovering.servers)

    async def follow_sources(self, daemon: Running) -> None:
        """Read the sources of servers when they are due, and apply what has changed. Never return."""
        while True:
            before = self.discovering.servers
            if await self.discovering.refresh():
                daemon.published.republish()  # the metrics of the sources have changed
            if self.discovering.servers != before:
                async with self._applying:
                    await daemon.apply(self.watch)
            await asyncio.sleep(_SOURCES_SECONDS)

    async def reload_when_asked(self, daemon: Running, asked: asyncio.Event) -> None:
        """Reload whenever `asked` is set, and whenever the files have changed if the settings say so. Never return."""
        while True:
            try:
                async with asyncio.timeout(_CHECK_SECONDS if self.settings.reload == "watch" else None):
                    await asked.wait()
            except TimeoutError:
                if self._files_changed():
                    await self._reload(daemon)
            else:
                asked.clear()
                self._errors = ()  # somebody waits for an answer, even if it is the same
                await self._reload(daemon)

    async def ended(self) -> None:
        """Wait a moment for a load that has not ended: Python must not end while a thread runs code of a library."""
        if self._loading is not None:
            await asyncio.wait({self._loading}, timeout=LAST_WRITES_SECONDS)

    def _files_changed(self) -> bool:
        """Return whether it is time to reload: a file has changed, or the last attempt failed, and no file changes now.

        An attempt may have failed for a reason outside these files, such as a password file that did not exist yet.
        """
        stamps = self._stamps()
        settled, self._seen_stamps = stamps == self._seen_stamps, stamps
        return settled and (stamps != self._loaded_stamps or bool(self._errors))

    async def _reload(self, daemon: Running) -> None:
        async with self._applying:
            await self._apply_loaded(daemon)

    async def _apply_loaded(self, daemon: Running) -> None:
        self._loaded_stamps = self._seen_stamps = self._stamps()
        try:
            self._loading = self._disk.run(self._load)
            loaded = (await asyncio.shield(self._loading)).settings
        except SettingsError as error:
            errors = tuple(map(str, error.errors))
            if errors != self._errors:
                log_line(self._log, "config_reload_failed", config_refused_line(errors), {"errors": list(errors)})
            self._errors = errors
            daemon.keep()
            return
        self._errors = ()
        changes = changes_between(self.settings, loaded)
        self.settings = in_force(self.settings, loaded)
        self.discovering.adjust(self.settings)
        configure_logs(self.settings.log_format, self.settings.log_level, name_server=self.settings.may_have_several)
        reconnected = await daemon.apply(self.watch)
        changed = {
            name: list(names) for name, names in {**asdict(changes), "reconnected": reconnected}.items() if names
        }
        log_line(self._log, "config_reloaded", config_reloaded_line(changed), changed)
