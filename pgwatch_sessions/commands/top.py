"""`pgwatch-sessions top`: a live view in the terminal."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from pgwatch_sessions.commands.command import (
    CONNECTION,
    EXIT_OK,
    EXIT_UNSEEN,
    JUDGEMENT,
    Command,
    CommandError,
    load_settings,
    positive_duration,
)
from pgwatch_sessions.commands.wiring import connections_of
from pgwatch_sessions.settings.secret_files import read_secret
from pgwatch_sessions.top.daemon_api import DaemonApi, LoginError, SourceError
from pgwatch_sessions.top.sources import PolledServers, RunningDaemon, Source

_INTERVAL = 2.0
#: Terminals that cannot place the cursor, and terminals that have no colours.
_TOO_SIMPLE = frozenset({"", "dumb", "unknown"})
_WITHOUT_COLOUR = ("vt1", "vt2")


def _top(options: argparse.Namespace) -> int:
    _check_terminal()
    try:
        from pgwatch_sessions.top.running import run_top  # noqa: PLC0415  # needs the extra
    except ModuleNotFoundError:
        raise CommandError("top needs an extra that is not installed: pip install 'pgwatch-sessions[top]'") from None
    source = _daemon(options) if options.url else _servers(options)
    try:
        asyncio.run(run_top(source, interval=options.refresh))
    except LoginError as error:
        raise CommandError(str(error)) from None
    except SourceError as error:
        sys.stderr.write(f"pgwatch-sessions: error: {error}\n")
        return EXIT_UNSEEN
    return EXIT_OK


def _check_terminal() -> None:
    terminal = os.environ.get("TERM", "")
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise CommandError("top needs a terminal; for a pipe or a file, use: pgwatch-sessions check --follow")
    if terminal in _TOO_SIMPLE:
        raise CommandError(
            f"top cannot draw on a terminal of type '{terminal}' (TERM); use: pgwatch-sessions check --follow"
        )
    if (sys.stderr.encoding or "").lower().replace("-", "") != "utf8":
        raise CommandError(f"top needs UTF-8, but the locale has {sys.stderr.encoding}; set LC_ALL=C.UTF-8")
    if terminal.startswith(_WITHOUT_COLOUR):
        os.environ["NO_COLOR"] = "1"
    os.environ["TEXTUAL_DISABLE_KITTY_KEY"] = "1"  # old terminals print a part of what asks for that protocol


def _daemon(options: argparse.Namespace) -> Source:
    try:
        login = read_secret(options.login_file) if options.login_file else None
        return RunningDaemon(DaemonApi(options.url, login))
    except OSError as error:
        raise CommandError(f"--login-file: {error}") from None
    except ValueError as error:
        raise CommandError(f"--url: {error}") from None


def _servers(options: argparse.Namespace) -> Source:
    if options.login_file:
        raise CommandError("--login-file is for --url")
    settings = load_settings(options)
    return PolledServers(connections_of(settings), settings.policy, patience=options.refresh)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", metavar="URL", help="read a running daemon, for example http://127.0.0.1:9488, not the servers"
    )
    parser.add_argument(
        "--login-file", metavar="FILE", type=Path, help="file with one line NAME:PASSWORD, for a daemon that asks"
    )
    parser.add_argument(
        "--interval",
        dest="refresh",
        metavar="DURATION",
        type=positive_duration,
        default=_INTERVAL,
        help=f"time between polls, or between requests to the daemon. Default: {_INTERVAL:.0f}s.",
    )


TOP = Command(
    name="top",
    purpose="show findings, limits and clients live in the terminal",
    description="""\
Shows live in the terminal what is wrong, how full the limits are, the findings, and the clients by state. Opens a
finding with its sessions, the likely cause and what to do, and copies the SQL that ends its sessions. It never runs
that SQL. Polls the servers itself, or reads a running daemon with --url.

It needs the extra: pip install 'pgwatch-sessions[top]'. The key ? lists all keys.""",
    settings=(*CONNECTION, *JUDGEMENT),
    add_options=_add_options,
    run=_top,
    epilog="""\
examples:
  pgwatch-sessions top --dsn postgresql://pgwatch_sessions@db/postgres
  pgwatch-sessions top --url http://127.0.0.1:9488
  pgwatch-sessions top --url https://db.example.org:9488 --login-file ~/.pgwatch-login --interval 10s

exit codes:
  0  the person quit
  2  wrong usage or configuration, a terminal that is too simple, or a daemon that asks for a login
  3  no daemon answers at the URL
""",
)
