"""The command line: which commands there are, and the one that is asked for."""

import argparse
import sys
from collections.abc import Sequence

from pgwatch_sessions import __version__
from pgwatch_sessions.commands import check_health
from pgwatch_sessions.commands.check import CHECK
from pgwatch_sessions.commands.command import EXIT_USAGE, Command, CommandError, add_settings
from pgwatch_sessions.commands.config import CONFIG
from pgwatch_sessions.commands.demo import DEMO
from pgwatch_sessions.commands.record import RECORD
from pgwatch_sessions.commands.replay import REPLAY
from pgwatch_sessions.commands.run import RUN
from pgwatch_sessions.settings.errors import SettingsError
from pgwatch_sessions.web.http_server import CannotListenError

CHECK_HEALTH = Command(
    name=check_health.NAME,
    purpose=check_health.PURPOSE,
    description=check_health.DESCRIPTION,
    epilog=check_health.EPILOG,
    add_options=check_health.add_options,
    obey=check_health.obey,
)
COMMANDS = (RUN, CHECK, RECORD, REPLAY, DEMO, CONFIG, CHECK_HEALTH)


def obey(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit code."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:  # argparse's own complaint would show the usage of the whole, not the command's
        options.complain(f"unrecognized arguments: {' '.join(unknown)}")
    command: Command = options.command
    try:
        return command.obey(options)
    except SettingsError as error:
        _complain(*(str(mistake) for mistake in error.errors))
    except CannotListenError as error:
        _complain(f"{error}; choose another address with --listen")
    except CommandError as error:
        _complain(str(error))
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
    for command in COMMANDS:
        purpose = f"{command.purpose[0].upper()}{command.purpose[1:]}."
        own = commands.add_parser(
            command.name,
            help=command.purpose,
            description=command.description or purpose,
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(own)
        if command.settings:
            add_settings(own, command.settings)
        own.set_defaults(command=command, complain=own.error)
    return parser


def _complain(*mistakes: str) -> None:
    for mistake in mistakes:
        sys.stderr.write(f"pgwatch-sessions: error: {mistake}\n")
