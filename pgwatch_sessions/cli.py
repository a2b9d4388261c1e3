"""The command line: one subcommand each, settings as options, and the exit codes that all commands share."""

import argparse
import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from pgwatch_sessions import __version__
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.statements import Statement, parse_statement
from pgwatch_sessions.daemon import Watch, run
from pgwatch_sessions.exposition.http_server import CannotListenError, bind
from pgwatch_sessions.logs import configure_logs
from pgwatch_sessions.postgres.connection import Target
from pgwatch_sessions.settings import Server, Settings, SettingsError, describe, effective, load, read_secret

EXIT_OK = 0
EXIT_FAULT = 1
EXIT_USAGE = 2

_EXIT_CODES = """exit codes:
  0  ended as asked
  1  a fault of the program; the traceback says more
  2  wrong usage or configuration
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the arguments name, and exit with its code."""
    try:
        try:
            code = _obey(_parser().parse_args(arguments))
        finally:
            if sys.stdout is not None:  # it is, where whoever started us has closed it
                sys.stdout.flush()  # whether anybody reads shows here; at its own end, Python would complain
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what could not be written now never can be
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code)


def _obey(options: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except SettingsError as error:
        _complain(*(str(mistake) for mistake in error.errors))
    except CannotListenError as error:
        _complain(f"{error}; choose another address with --listen")
    return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pgwatch-sessions",
        description="Watches PostgreSQL sessions, finds connection leaks before the server runs out of connections, "
        "and says who leaks.",
        epilog="Each command has its own --help.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(commands, "run", _run, "watch the servers until SIGTERM or SIGINT")
    _add(commands, "config", _config, "check the configuration and print what is in effect, secrets masked")
    demo = commands.add_parser(
        "demo",
        help="see it work: an embedded PostgreSQL and a small service that leaks",
        description="Starts a PostgreSQL of its own and a small FastAPI service that leaks on it, watches them, and "
        "leaves nothing behind. Needs the extra: pip install 'pgwatch-sessions[demo]'.",
    )
    demo.add_argument("--once", action="store_true", help="end by itself after about 30 s")
    demo.set_defaults(command=_demo)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Callable[[argparse.Namespace], int],
    purpose: str,
) -> None:
    """Add a command that takes every setting as an option."""
    parser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    loading = parser.add_argument_group("configuration")
    loading.add_argument("--config", metavar="FILE", help="YAML file of settings [PGWATCH_SESSIONS_CONFIG]")
    loading.add_argument(
        "--secrets-dir", metavar="DIR", help="directory of secret files [PGWATCH_SESSIONS_SECRETS_DIR]"
    )
    settings = parser.add_argument_group(
        "settings", "Each can also be set in the file and by the environment variable in brackets."
    )
    for setting in describe():
        default = f" Default: {setting.default}." if setting.default else ""
        settings.add_argument(
            setting.option,
            dest=setting.name,
            metavar="VALUE",
            help=f"{setting.description}{default} [{setting.variable}]".replace("%", "%%"),
        )
    parser.set_defaults(command=command)


def _load(options: argparse.Namespace) -> Settings:
    return load({name: value for name, value in vars(options).items() if name != "command"})


def _run(options: argparse.Namespace) -> int:
    settings = _load(options)
    configure_logs(settings.log_format, settings.log_level)
    listener = bind(settings.listen.host, settings.listen.port)
    try:
        asyncio.run(run(watch_of(settings), listener))
    except Exception:  # noqa: BLE001  # whatever a job raised: the process ends with it, and says so
        traceback.print_exc()
        return EXIT_FAULT
    return EXIT_OK


def _config(options: argparse.Namespace) -> int:
    sys.stdout.write(effective(_load(options)))
    return EXIT_OK


def _demo(options: argparse.Namespace) -> int:
    from pgwatch_sessions.demo.story import tell  # noqa: PLC0415  # needs the extra that no other command does

    return tell(once=options.once)


def watch_of(settings: Settings) -> Watch:
    """Return what the daemon needs of the settings."""
    return Watch(
        targets=tuple(_target(server) for server in settings.servers),
        interval=settings.interval,
        timeout=settings.timeout,
        policy=policy_of(settings),
        parse=parse_statement if settings.statements == "redacted" else _parse_without_text,
    )


def policy_of(settings: Settings) -> Policy:
    """Return how to judge what is seen."""
    return Policy(
        hold_limit=settings.hold_limit,
        growth_window=settings.growth_window,
        horizon=settings.horizon,
        max_clients=settings.max_clients,
    )


def _target(server: Server) -> Target:
    file = server.password_file
    return Target(
        name=server.name,
        dsn=server.dsn.get_secret_value() if server.dsn else None,
        password=(lambda: read_secret(file)) if file else None,
    )


def _parse_without_text(sql: str | None) -> Statement:
    return replace(parse_statement(sql), text="", summary="(statement)")


def _complain(*mistakes: str) -> None:
    for mistake in mistakes:
        sys.stderr.write(f"pgwatch-sessions: error: {mistake}\n")
