"""`pgwatch-sessions run`: the daemon."""

import argparse
import asyncio
import traceback

from pgwatch_sessions.commands.command import EXIT_FAULT, EXIT_OK, Command, every_setting, load_settings
from pgwatch_sessions.commands.wiring import watch_of
from pgwatch_sessions.daemon import run
from pgwatch_sessions.exposition.http_server import bind
from pgwatch_sessions.logs import configure_logs


def _run(options: argparse.Namespace) -> int:
    settings = load_settings(options)
    configure_logs(settings.log_format, settings.log_level)
    listener = bind(settings.listen.host, settings.listen.port)
    try:
        asyncio.run(run(watch_of(settings), listener))
    except Exception:  # noqa: BLE001  # whatever a job raised: the process ends with it, and says so
        traceback.print_exc()
        return EXIT_FAULT
    return EXIT_OK


RUN = Command(
    name="run",
    purpose="watch the servers until SIGTERM or SIGINT",
    settings=every_setting(),
    obey=_run,
    epilog="""\
examples:
  pgwatch-sessions run --config pgwatch-sessions.yaml
  PGWATCH_SESSIONS_DSN=postgresql://pgwatch@db/postgres pgwatch-sessions run

exit codes:
  0  ended as asked
  1  a fault of the program; the traceback says more
  2  wrong usage or configuration
""",
)
