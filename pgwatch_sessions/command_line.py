"""The command line: all commands, and their common options and errors."""

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
    run=check_health.run,
)
COMMANDS = (RUN, CHECK, RECORD, REPLAY, DEMO, CONFIG, CHECK_HEALTH)


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; return the exit code."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:  # parse_args would show the usage of the whole program, not that of the command
        options.fail(f"unrecognized arguments: {' '.join(unknown)}")
    command: Command = options.command
    try:
        return command.run(options)
    except SettingsError as error:
        _report(*(str(each) for each in error.errors))
    except CannotListenError as error:
        _report(f"{error}; choose another address with --listen")
    except CommandError as error:
        _report(str(error))
    return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pgwatch-sessions",
        description="Watches PostgreSQL sessions, detects connection leaks before the server runs out of connections, "
        "and names the source.",
        epilog="See COMMAND --help for the options of each command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        purpose = f"{command.purpose[0].upper()}{command.purpose[1:]}."
        subparser = commands.add_parser(
            command.name,
            help=command.purpose,
            description=command.description or purpose,
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(subparser)
        if command.settings:
            add_settings(subparser, command.settings)
        subparser.set_defaults(command=command, fail=subparser.error)
    return parser


def _report(*errors: str) -> None:
    for error in errors:
        sys.stderr.write(f"pgwatch-sessions: error: {error}\n")
