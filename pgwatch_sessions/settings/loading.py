"""Load the settings: read all sources, merge them, check them, and report all errors at once.

Precedence: command line, environment, secret files, configuration file, defaults.

pydantic-settings finds each setting by prefix and section, merges the sources in their order and checks the result.
Its own sources are not used: none of them can say where a value was given, and those that read files stop at the first
file that cannot be read, skip missing files, ignore duplicate keys and quote the file in errors.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, InitSettingsSource

from pgwatch_sessions.settings.errors import KeyPath, PlacedError, SettingError, SettingsError, not_a_setting
from pgwatch_sessions.settings.model import SCALARS, OneServerSettings, Settings, model_at
from pgwatch_sessions.settings.one_server import LOGIN_OPTIONS, ChosenServer, choose_server
from pgwatch_sessions.settings.sources import PREFIX, Layer, Placed, Wrong, read_sources, variable
from pgwatch_sessions.settings.stamps import Stamp, source_stamps

# It logs all values, passwords too, if the environment variable PYDANTIC_SETTINGS_DEBUG is set.
logging.getLogger("pydantic_settings").disabled = True

#: Paths of settings by their environment variables.
_KNOWN = {variable(path): path for path in SCALARS}
_DSN = variable(("dsn",))
_TEXT = "must be text; put it in quotes"
#: Messages about the lists, by pydantic's error types.
_MESSAGES_OF_LISTS = {
    "tuple_type": {
        "servers": "must be a list of servers; remove it to watch the one server of libpq's variables",
        "servers_from": "must be a list, such as `- {file_sd: targets/*.json, dsn: ...}`",
        "hold_limits": "must be a list, such as `- {site: /reports, limit: 10m}`",
        **dict.fromkeys(
            ("tools", "allowed_hosts"),
            "must be a list of patterns, such as `[pg_dump, psql]`; remove it for the default",
        ),
    },
    "model_type": {
        "servers": "must be a mapping, such as `name: orders`",
        "servers_from": "must be a mapping, such as `{file_sd: targets/*.json, dsn: ...}`",
        "hold_limits": "must be a mapping, such as `{site: /reports, limit: 10m}`",
    },
}
#: Messages by pydantic's error types.
_MESSAGES = {
    "invalid_key": "has a key that is not text; remove it",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping",
    "string_type": _TEXT,
    "path_type": _TEXT,
}


class _VariablesSource(EnvSettingsSource):
    """Gives settings by the names of environment variables, wherever they were read."""

    def __init__(self, variables: Mapping[str, Placed]) -> None:
        super().__init__(OneServerSettings, case_sensitive=False)
        self.env_vars = {name.lower(): given.value for name, given in variables.items() if name in _KNOWN}
        self.places: dict[KeyPath, str] = {_KNOWN[name]: variables[name].place for name in _KNOWN.keys() & variables}
        self.errors = {
            place: value if isinstance(value, Wrong) else Wrong(_unknown_variable(name))
            for name, (value, place) in variables.items()
            if name not in _KNOWN
        }

    def __call__(self) -> dict[str, Any]:
        """Return the values, and each error under its place.

        No setting has that name, so validation refuses it and reports it together with all other errors.
        """
        return {**super().__call__(), **self.errors}


class _FileSource(InitSettingsSource):
    """Gives the settings of the configuration file, and its errors in the same way."""

    def __init__(self, file: Layer) -> None:
        super().__init__(Settings, {**file.values, **{error.place: Wrong(error.message) for error in file.errors}})
        self.places = file.places


class LoadedSettings(NamedTuple):
    """The settings, and where they come from."""

    settings: Settings
    #: The place of each setting that was given, by its path. Those of the one server have no `servers` before them.
    places: Mapping[KeyPath, str]
    #: If options gave parts of the one server's DSN: the place of each part, by libpq's keyword.
    dsn_parts: Mapping[str, str]
    #: What the user should know, one line each.
    notices: tuple[str, ...]


def load(options: Mapping[str, object] | None = None) -> Settings:
    """Return the settings. See `load_with_places`."""
    return load_with_places(options).settings


def load_with_places(options: Mapping[str, object] | None = None, *, connects: bool = True) -> LoadedSettings:
    """Return the settings with their places. Without `connects`, variables of other programs are not looked at.

    `options` are named as in `describe`, and may have `config`, `secrets_dir` and psql's `host`, `port`, `username` and
    `dbname`. Raises SettingsError with all errors.
    """
    login = {name: str(value) for name, value in (options or {}).items() if name in LOGIN_OPTIONS and value is not None}
    others = {name: value for name, value in (options or {}).items() if name not in LOGIN_OPTIONS}
    variables, file = read_sources(others, os.environ, _KNOWN)
    chosen, errors = _chosen_server(variables, file, login, os.environ if connects else {})
    first = {_DSN: chosen.dsn} if chosen.dsn else {}
    sources: list[_VariablesSource | _FileSource] = [*map(_VariablesSource, (first | errors, *variables))]
    sources.append(_FileSource(file))
    places = {path: place for source in reversed(sources) for path, place in source.places.items()}
    try:
        settings = Settings.model_validate({"sources": sources})
    except ValidationError as invalid:
        found = tuple(_explained(error, Layer(places=places)) for error in invalid.errors(include_url=False))
    else:
        return LoadedSettings(settings, places, chosen.parts, (chosen.notice,) if chosen.notice else ())
    raise SettingsError(found)  # outside of `except`: pydantic's error has the values, and so secrets


def _chosen_server(
    variables: tuple[Mapping[str, Placed], ...], file: Layer, options: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[ChosenServer, dict[str, Placed]]:
    """Return the one server, and errors by their places."""
    dsn = next((source[_DSN] for source in variables if _DSN in source), None)
    if "servers" in file.values:
        conflict = Wrong("conflicts with `servers`; give the server by options, or use servers")
        return ChosenServer(None), {f"--{name}": Placed(conflict, f"--{name}") for name in options}
    if dsn is None and file.values.get("dsn") is not None:
        dsn = Placed(file.values["dsn"], file.place(("dsn",)))
    if dsn is not None and not isinstance(dsn.value, str):  # reported when all settings are checked
        return ChosenServer(None), {}
    try:
        chosen = choose_server(dsn, options, environ)
    except PlacedError as error:
        return ChosenServer(None), {error.place: Placed(Wrong(error.message), error.place)}
    return (chosen._replace(dsn=None) if chosen.dsn is dsn else chosen), {}


def stamps(options: Mapping[str, object]) -> Mapping[Path, Stamp]:
    """Return the stamps of the files that `load` reads with these options."""
    return source_stamps(options, os.environ, _KNOWN)


def to_yaml(settings: Settings) -> str:
    """Return a configuration file with these settings. Secrets are masked."""
    text: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=10**6)
    return text


def _unknown_variable(name: str) -> str:
    if name.startswith(variable(("servers_from",))):
        return "unknown setting; set `servers_from` in the configuration file"
    if name.startswith(variable(("servers",))):
        return "unknown setting; set several servers with `servers` in the configuration file"
    if name.startswith(variable(("hold_limits",))):
        return "unknown setting; set `hold_limits` in the configuration file"
    return not_a_setting(name, _KNOWN, prefix=PREFIX)


def _explained(error: ErrorDetails, places: Layer) -> SettingError:
    """Return the error in our words and without the value, which may be a secret."""
    path, kind, value = error["loc"], error["type"], error["input"]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, PlacedError):
        return SettingError(place=cause.place, message=cause.message)
    if kind == "extra_forbidden" and isinstance(value, Wrong) and path not in places.places:
        return SettingError(place=str(path[0]), message=value.message)
    if path[:2] == ("servers", 0) and path not in places.places and path[2:] in places.places:
        path = path[2:]  # the one server that is given by name, dsn and password_file
    if isinstance(value, Wrong):
        message = value.message
    elif kind == "value_error":
        message = str(cause)
    elif kind == "literal_error":
        message = f"must be {error['ctx']['expected']}"
    elif kind == "extra_forbidden":
        message = not_a_setting(str(path[-1]), model_at(path[:-1]).model_fields)
    elif kind == "missing":
        message = f"has no {path[-1]}; add it"
    elif kind in _MESSAGES_OF_LISTS and len(path) <= 2:
        message = _MESSAGES_OF_LISTS[kind][str(path[0])]
    else:
        message = _MESSAGES.get(kind, "invalid value")
    return SettingError(place=places.place(path), message=message)
