"""Settings are read from all their sources, checked at once, and shown.

Precedence: command line, environment, secret files, configuration file, defaults.

The checking is pydantic-settings', the sources are our own: the library's stop at the first that fails, and cannot say
where a value came from.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pgwatch_sessions.settings import sources
from pgwatch_sessions.settings.address import Address
from pgwatch_sessions.settings.dsn import check_dsn, server_name
from pgwatch_sessions.settings.errors import SettingError, SettingsError, not_a_setting
from pgwatch_sessions.settings.model import NAME_LENGTH, SCALARS, Server, Settings
from pgwatch_sessions.settings.quantities import Quantity
from pgwatch_sessions.settings.sources import Layer

_MAPPING = "must be a mapping, such as `name: orders`"
_TEXT = "must be text; put it in quotes"
#: Messages by pydantic's error types.
_TYPES = {
    "tuple_type": "must be a list of servers; leave it out to watch the one server of libpq's variables",
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "invalid_key": "has a key that is not text; the settings are named in words",
    "string_type": _TEXT,
    "path_type": _TEXT,
}
#: Of what is no quantity and no choice.
_PLACEHOLDERS: dict[Any, str] = {str: "TEXT", Path: "PATH", SecretStr: "URI", Address: "ADDRESS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A setting for help texts and documentation."""

    name: str
    option: str
    variable: str
    #: What stands for its value in help texts, such as DURATION.
    placeholder: str
    #: As it would be written; None where there is none.
    default: str | None
    description: str


def load(options: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings; `options` are named as in `describe`, besides `config` and `secrets_dir`.

    Raises SettingsError with every mistake there is.
    """
    environ = os.environ if environ is None else environ
    layer = reduce(lambda high, low: high.over(low), _layers(options or {}, environ))
    values, errors = _settled(layer, environ)
    found = [*layer.errors, *errors]
    try:
        settings = Settings.model_validate(values)
    except ValidationError as invalid:
        found += [_explained(error, layer) for error in invalid.errors(include_url=False)]
        raise SettingsError(tuple(found)) from None  # pydantic's own error holds the values
    if found:
        raise SettingsError(tuple(found))
    return settings


def effective(settings: Settings) -> str:
    """Return YAML that loads again, except that secrets are masked."""
    text: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=1000)
    return text


def describe() -> tuple[Described, ...]:
    """Return every setting that environment and command line can give, in their order."""
    return tuple(
        Described(
            name=".".join(path),
            option=sources.option(path),
            variable=sources.variable(path),
            placeholder=_placeholder(field),
            default=_default(path),
            description=field.description or "",
        )
        for path, field in SCALARS.items()
    )


def _layers(options: Mapping[str, object], environ: Mapping[str, str]) -> Iterator[Layer]:
    """Yield the sources, the one that wins first."""
    yield sources.from_options(options)
    direct, filed = sources.from_variables(environ, known=SCALARS)
    yield direct
    yield filed
    directory, place = _given("secrets_dir", options, environ)
    if directory:
        yield sources.from_secrets(Path(directory), known=SCALARS, place=place)
    file, place = _given("config", options, environ)
    if file:
        yield sources.from_file(Path(file), place=place)


def _given(name: str, options: Mapping[str, object], environ: Mapping[str, str]) -> tuple[str | None, str]:
    if options.get(name) is not None:
        return str(options[name]), sources.option((name,))
    variable = sources.variable((name,))
    return environ.get(variable), f"environment variable {variable}"


def _settled(layer: Layer, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[SettingError]]:
    """Make the settings of one server a list of one, and give each server its name."""
    values = dict(layer.values)
    one = {name: values.pop(name, None) for name in Server.model_fields}
    one = {name: value for name, value in one.items() if value is not None}
    errors = []
    if "servers" in values:
        errors = [
            SettingError(
                place=layer.place((name,)),
                message="stands beside `servers`; give one server by dsn, name and password_file, or all in servers",
            )
            for name in one
        ]
    else:
        values["servers"] = [one]
    if isinstance(values["servers"], list):
        values["servers"] = [_named(server, index, environ) for index, server in enumerate(values["servers"])]
        errors += _same_names(values["servers"], layer)
    return values, errors


def _named(server: Any, index: int, environ: Mapping[str, str]) -> Any:
    if not isinstance(server, dict) or server.get("name") is not None:
        return server
    dsn = server.get("dsn")
    try:
        if dsn is not None:
            check_dsn(str(dsn))
        return {**server, "name": server_name(dsn, environ)[:NAME_LENGTH]}
    except ValueError:  # reported when the DSN itself is checked
        return {**server, "name": f"servers[{index}]"}


def _same_names(servers: list[Any], layer: Layer) -> Iterator[SettingError]:
    seen = set()
    for index, server in enumerate(servers):
        name = server.get("name") if isinstance(server, dict) else None
        if isinstance(name, str) and name in seen:
            yield SettingError(
                place=layer.place(("servers", index, "name")),
                message=f"another server is called {name} as well; give each server a name of its own",
            )
        seen.add(str(name))


def _explained(error: ErrorDetails, layer: Layer) -> SettingError:
    """Say in our words what pydantic found, without the value, which may be a secret."""
    path = error["loc"]
    if path[:2] == ("servers", 0) and path not in layer.places and path[2:] in layer.places:
        path = path[2:]  # the settings of one server
    return SettingError(place=layer.place(path), message=_message(error))


def _message(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        return f"must be {error['ctx']['expected']}"
    if kind == "extra_forbidden":
        in_server = len(error["loc"]) == 3
        known = Server.model_fields if in_server else [*Settings.model_fields, *Server.model_fields]
        return not_a_setting(str(error["loc"][-1]), known)
    return _TYPES.get(kind, "is not valid")


def _placeholder(field: FieldInfo) -> str:
    for note in field.metadata:
        if isinstance(note, Quantity):
            return note.placeholder
    kind = field.annotation
    while get_origin(kind) is not Literal and get_args(kind):
        kind = get_args(kind)[0]  # of X | None, of Annotated[X, ...], of tuple[X, ...]
    return _PLACEHOLDERS.get(kind) or f"{{{','.join(get_args(kind))}}}"


def _default(path: tuple[str, ...]) -> str | None:
    value: Any = Settings.model_construct(servers=()).model_dump(mode="json")
    for name in path:
        value = value.get(name)
    return None if value is None else str(value)
