"""The command line: all commands, and their common options and errors."""

import argparse
import sys
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

from pgwatch_sessions import __version__
from pgwatch_sessions.commands import check_health
from pgwatch_sessions.commands.assets import ASSETS
from pgwatch_sessions.commands.check import CHECK, TERMINATE_SQL
from pgwatch_sessions.commands.command import EXIT_USAGE, Command, CommandError, add_settings
from pgwatch_sessions.commands.completion import COMPLETION
from pgwatch_sessions.commands.config import CONFIG
from pgwatch_sessions.commands.demo import DEMO
from pgwatch_sessions.commands.parser import Parser
from pgwatch_sessions.commands.record import RECORD
from pgwatch_sessions.commands.replay import REPLAY
from pgwatch_sessions.commands.role_sql import ROLE_SQL
from pgwatch_sessions.commands.run import RUN
from pgwatch_sessions.commands.top import TOP
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
COMMANDS = (
    RUN, CHECK, TOP, TERMINATE_SQL, RECORD, REPLAY, DEMO, CONFIG, ASSETS, ROLE_SQL, COMPLETION, CHECK_HEALTH,
)  # fmt: skip
_COMMAND_NAMES = tuple(command.name for command in COMMANDS)


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; return the exit code."""
    parser = _parser()
    if not arguments:
        parser.error(f"name a command: {', '.join(_COMMAND_NAMES)}")
    if not arguments[0].startswith("-") and arguments[0] not in _COMMAND_NAMES:
        parser.error(f"unknown command {arguments[0]}{_did_you_mean(arguments[0], _COMMAND_NAMES)}")
    if arguments[0].startswith("-") and arguments[0] not in {"--help", "--version"}:
        parser.error(
            f"option {arguments[0].partition('=')[0]} before the command; write the command first: check -h db"
        )
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # parse_args would name the help of the whole program, not that of the command
        options.fail(_unknown(unknown[0], options.known))
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


def _parser() -> Parser:
    parser = Parser(
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
        known = [option for action in subparser._actions for option in action.option_strings]  # noqa: SLF001  # not public
        subparser.set_defaults(command=command, fail=subparser.error, known=known, parser=parser)
    return parser


def _unknown(argument: str, known: Collection[str]) -> str:
    """Return the message for an argument that the command does not have. A value after = may be a secret."""
    name = argument.partition("=")[0]
    if not name.startswith("-"):
        hint = "; write a connection string after -d" if "-d" in known else ""
        return f"unexpected argument, because each value follows its option{hint}"
    return f"unknown option {name}{_did_you_mean(name, known)}"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    by_text = {each.lstrip("-"): each for each in known}  # what all begin with would make them similar
    similar = get_close_matches(name.lstrip("-"), by_text, n=1)
    return f"; did you mean {by_text[similar[0]]}?" if similar else ""


def _report(*errors: str) -> None:
    for error in errors:
        sys.stderr.write(f"pgwatch-sessions: error: {error}\n")
