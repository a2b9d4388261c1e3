"""`pgwatch-sessions run`: runs the daemon."""

import argparse
import asyncio
import os
import socket
import traceback
from typing import TYPE_CHECKING

import structlog

from pgwatch_sessions.commands.command import (
    EXIT_FAULT,
    EXIT_OK,
    Command,
    CommandError,
    every_setting,
    load_all,
    stamps_of_sources,
)
from pgwatch_sessions.commands.reloading import Configuration
from pgwatch_sessions.daemon import running
from pgwatch_sessions.hangup import hangup_event
from pgwatch_sessions.logs import configure_logs, log_line
from pgwatch_sessions.settings.address import Address
from pgwatch_sessions.settings.exposed_files import readable_by_all
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.systemd import Systemd
from pgwatch_sessions.watchdog import Watchdog
from pgwatch_sessions.web.app import Health
from pgwatch_sessions.web.host_names import is_loopback
from pgwatch_sessions.web.http_server import CannotListenError, bind, url
from pgwatch_sessions.wording.event_lines import login_missing_line, secret_readable_line, stuck_line
from pgwatch_sessions.wording.lines import Line, Tone

if TYPE_CHECKING:
    from pgwatch_sessions.web.access.access import Access


def _run(options: argparse.Namespace) -> int:
    configuration = Configuration(lambda: load_all(options), lambda: stamps_of_sources(options))
    settings = configuration.settings
    configure_logs(settings.log_format, settings.log_level, name_server=settings.may_have_several)
    for notice in configuration.notices:
        log_line(structlog.get_logger(), "server_chosen", Line("settings", Tone.NOTE, notice))
    access = _access_of(settings)
    listener = bind(settings.listen.host, settings.listen.port)
    metrics_listener = _metrics_listener(settings.metrics_listen)
    _warn_of_exposure(configuration, listener, access)
    try:
        asyncio.run(_serve(configuration, listener, metrics_listener, access))
    except Exception:  # noqa: BLE001  # whatever a poll raised ends the process
        traceback.print_exc()
        return EXIT_FAULT
    return EXIT_OK


async def _serve(
    configuration: Configuration,
    listener: socket.socket,
    metrics_listener: socket.socket | None,
    access: "Access | None",
) -> None:
    """Run until SIGTERM or SIGINT. An error in a poll or in reloading is an error in the program: it is raised here."""
    await configuration.discovering.begin()
    systemd = Systemd(os.environ, os.getpid())
    with hangup_event() as asked, Watchdog(_say_stuck, EXIT_FAULT) as watchdog:

        def on_beat(health: Health) -> None:
            watchdog.report(None if health.ok else health.reason)
            if health.ok:
                systemd.alive()

        allowed_hosts = _allowed_hosts(configuration.settings, listener)
        async with running(
            configuration.watch, listener, metrics_listener, access, allowed_hosts=allowed_hosts, on_beat=on_beat
        ) as daemon:
            daemon.sources = configuration.discovering.figures
            systemd.ready()
            changing = {
                asyncio.create_task(configuration.reload_when_asked(daemon, asked)),
                asyncio.create_task(configuration.follow_sources(daemon)),
            }
            done, _ = await asyncio.wait({daemon.end, *changing}, return_when=asyncio.FIRST_COMPLETED)
            for task in changing:
                task.cancel()
            await asyncio.wait(changing)
            await configuration.ended()
            systemd.stopping()
            for ended in done:
                ended.result()


def _say_stuck(problem: str) -> None:
    log_line(structlog.get_logger(), "stuck", stuck_line(problem))


def _allowed_hosts(settings: Settings, listener: socket.socket) -> tuple[str, ...]:
    """Return the names under which the page may be opened; none means every name."""
    if settings.allowed_hosts or is_loopback(listener.getsockname()[0]):
        return (*settings.allowed_hosts, settings.listen.host)
    return ()


def _metrics_listener(address: Address | None) -> socket.socket | None:
    try:
        return bind(address.host, address.port) if address else None
    except CannotListenError as error:
        raise CommandError(f"{error}; choose another address with --metrics-listen") from error


def _warn_of_exposure(configuration: Configuration, listener: socket.socket, access: "Access | None") -> None:
    """Log what others can read: the page, and files with secrets."""
    log = structlog.get_logger()
    if not is_loopback(listener.getsockname()[0]) and not (access and access.asks_for_login()):
        address = url(listener, scheme=access.scheme if access else "http")
        log_line(log, "login_missing", login_missing_line(address), {"address": address})
    for path, holds in dict.fromkeys((*configuration.secret_files, *(access.secret_files if access else ()))):
        if readable_by_all(path):
            log_line(log, "secret_readable", secret_readable_line(str(path), holds), {"path": str(path)})


def _access_of(settings: Settings) -> "Access | None":
    if settings.web_config is None:
        return None
    from pgwatch_sessions.web.access.access import Access  # noqa: PLC0415  # loads bcrypt, which few need

    return Access(settings.web_config)


RUN = Command(
    name="run",
    purpose="run the daemon: poll the servers until SIGTERM or SIGINT",
    description="Polls the servers until SIGTERM or SIGINT. On SIGHUP it reads its configuration again.",
    settings=every_setting(),
    run=_run,
    epilog="""\
examples:
  pgwatch-sessions run --config pgwatch-sessions.yaml
  pgwatch-sessions run -h db -U pgwatch_sessions -d postgres
  PGWATCH_SESSIONS_DSN=postgresql://pgwatch_sessions@db/postgres pgwatch-sessions run

exit codes:
  0  ended by SIGTERM or SIGINT
  1  an error in the program; standard error has the traceback
  2  wrong usage or configuration
""",
)
