"""A command: its name, help, options, action and exit codes, and how it loads the settings."""

import argparse
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.settings.listing import describe
from pgwatch_sessions.settings.loading import LoadedSettings, load_with_places, stamps
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.settings.one_server import LOGIN_OPTIONS
from pgwatch_sessions.settings.quantities import read_count, read_duration
from pgwatch_sessions.settings.stamps import Stamp

EXIT_OK = 0
#: `run` and `demo`: a fault of the program. `check` and `replay`: something was found.
EXIT_FAULT = EXIT_FOUND = 1
EXIT_USAGE = 2
EXIT_UNSEEN = 3

#: The settings of a connection.
CONNECTION = ("name", "dsn", "password_file", "allow_cleartext_password", "timeout")
#: The settings that decide what is reported, and how statements are shown.
JUDGEMENT = (*(field.name for field in fields(Policy)), "statements")
#: Options that say where other settings are read from.
_LOADING = ("config", "secrets_dir")
#: psql's options: short form, long form, placeholder, meaning.
PSQL_OPTIONS = (
    ("-h", "--host", "HOST", "host name, address or socket folder of the server"),
    ("-p", "--port", "PORT", "port of the server"),
    ("-U", "--username", "NAME", "role to log in as"),
    ("-d", "--dbname", "NAME", "database to connect to, or a whole connection string"),
)


class CommandError(Exception):
    """An error that the user has to correct, in one line. The exit code is that of wrong usage."""


def _none(_: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand."""

    name: str
    #: One line for the overview.
    purpose: str
    #: A paragraph for its own help; the purpose when empty.
    description: str = ""
    #: Examples and exit codes, laid out.
    epilog: str
    #: Settings that can be given as options.
    settings: Collection[str] = ()
    add_options: Callable[[argparse.ArgumentParser], None] = _none
    #: Returns the exit code; raises SettingsError, CommandError and CannotListenError.
    run: Callable[[argparse.Namespace], int]


def every_setting() -> tuple[str, ...]:
    """Return the names of all settings that can be options."""
    return tuple(setting.name for setting in describe())


def add_settings(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """Add options for these settings, and `--config` and `--secrets-dir`."""
    loading = parser.add_argument_group("configuration")
    loading.add_argument("--config", metavar="FILE", help="YAML file of settings [PGWATCH_SESSIONS_CONFIG]")
    loading.add_argument(
        "--secrets-dir", metavar="DIR", help="directory of secret files [PGWATCH_SESSIONS_SECRETS_DIR]"
    )
    if "dsn" in names:
        server = parser.add_argument_group(
            "server, as in psql", "They replace what the dsn and libpq's variables say. -h is not help: that is --help."
        )
        for short, long, placeholder, meaning in PSQL_OPTIONS:
            server.add_argument(short, long, metavar=placeholder, help=meaning)
    settings = parser.add_argument_group(
        "settings",
        "Each can also be set in the file and by the environment variable in brackets.\n"
        "A DURATION is seconds, or a number with a unit: 500ms, 10s, 5m, 1h.",
    )
    for setting in describe():
        if setting.name in names:
            default = f" Default: {setting.default}." if setting.default else ""
            settings.add_argument(
                setting.option,
                dest=setting.name,
                metavar=setting.placeholder,
                help=f"{setting.description}{default} [{setting.variable}]".replace("%", "%%"),
            )


def load_settings(options: argparse.Namespace) -> Settings:
    """Load the settings from these options and all other sources. Raises SettingsError with all errors.

    If another program's variable names the server, say so on standard error.
    """
    loaded = load_all(options)
    sys.stderr.writelines(f"pgwatch-sessions: {notice}\n" for notice in loaded.notices)
    return loaded.settings


def load_all(options: argparse.Namespace) -> LoadedSettings:
    """Load the settings with their places and notices. Raises SettingsError with all errors."""
    return load_with_places(_given(options), connects=hasattr(options, "dsn"))


def stamps_of_sources(options: argparse.Namespace) -> Mapping[Path, Stamp]:
    """Return the stamps of the files that `load_all` reads."""
    return stamps(_given(options))


def _given(options: argparse.Namespace) -> Mapping[str, object]:
    names = {*every_setting(), *_LOADING, *LOGIN_OPTIONS}
    return {name: value for name, value in vars(options).items() if name in names}


def positive_duration(text: str) -> float:
    """Parse an option's duration, which must be longer than 0 s."""
    try:
        seconds = read_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError("must be longer than 0s")
    return seconds


def positive_count(text: str) -> int:
    """Parse an option's whole number, which must be at least 1."""
    try:
        number = read_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
