"""`pgwatch-sessions run`: runs the daemon."""

import argparse
import asyncio
import socket
import traceback
from typing import TYPE_CHECKING

import structlog

from pgwatch_sessions.commands.command import EXIT_FAULT, EXIT_OK, Command, CommandError, every_setting, load_all
from pgwatch_sessions.commands.wiring import watch_of
from pgwatch_sessions.daemon import run
from pgwatch_sessions.logs import configure_logs, log_line
from pgwatch_sessions.settings.address import Address
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.web.http_server import CannotListenError, bind
from pgwatch_sessions.wording.lines import Line, Tone

if TYPE_CHECKING:
    from pgwatch_sessions.web.access.access import Access


def _run(options: argparse.Namespace) -> int:
    loaded = load_all(options)
    settings = loaded.settings
    configure_logs(settings.log_format, settings.log_level, name_server=len(settings.servers) > 1)
    for notice in loaded.notices:
        log_line(structlog.get_logger(), "server_chosen", Line("settings", Tone.NOTE, notice))
    access = _access_of(settings)
    listener = bind(settings.listen.host, settings.listen.port)
    metrics_listener = _metrics_listener(settings.metrics_listen)
    try:
        asyncio.run(run(watch_of(settings), listener, metrics_listener, access))
    except Exception:  # noqa: BLE001  # whatever a poll raised ends the process
        traceback.print_exc()
        return EXIT_FAULT
    return EXIT_OK


def _metrics_listener(address: Address | None) -> socket.socket | None:
    try:
        return bind(address.host, address.port) if address else None
    except CannotListenError as error:
        raise CommandError(f"{error}; choose another address with --metrics-listen") from error


def _access_of(settings: Settings) -> "Access | None":
    if settings.web_config is None:
        return None
    from pgwatch_sessions.web.access.access import Access  # noqa: PLC0415  # loads bcrypt, which few need

    return Access(settings.web_config)


RUN = Command(
    name="run",
    purpose="run the daemon: poll the servers until SIGTERM or SIGINT",
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
