"""Where settings come from: each source gives a layer, and the mistakes found in it."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pgwatch_sessions.settings.errors import Path as Place
from pgwatch_sessions.settings.errors import SettingError, dotted, not_a_setting
from pgwatch_sessions.settings.secret_files import explained, explained_secret, read_secret

PREFIX = "PGWATCH_SESSIONS_"
#: Settings of the loading itself, which a file cannot hold.
LOADING = ("config", "secrets_dir")

# Kubernetes and `docker --link` give these to every container beside a service that is called pgwatch-sessions.
_SERVICE_LINK = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one source sets, as nested mappings, and where each part of it stands."""

    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[Place, str] = field(default_factory=dict)
    errors: tuple[SettingError, ...] = ()

    def over(self, lower: "Layer") -> "Layer":
        """Return both, this one's values winning."""
        return Layer(
            values=_merged(lower.values, self.values),
            places={**lower.places, **self.places},
            errors=self.errors + lower.errors,
        )

    def place(self, path: Place) -> str:
        """Return where a value stands, or else what it stands in."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "settings")


def variable(path: tuple[str, ...]) -> str:
    """Return the name of the environment variable of a setting."""
    return PREFIX + "__".join(path).upper()


def option(path: tuple[str, ...]) -> str:
    """Return the command line option of a setting."""
    return "--" + "-".join(path).replace("_", "-")


def from_options(options: Mapping[str, object]) -> Layer:
    """Read command line options by the dotted names of their settings; None means not given."""
    layer = Layer()
    for name, value in options.items():
        if value is not None and name not in LOADING:
            path = tuple(name.split("."))
            layer = _value(path, value, option(path)).over(layer)
    return layer


def from_variables(
    variables: Mapping[str, str], *, known: Collection[tuple[str, ...]], place: str = "environment variable"
) -> tuple[Layer, Layer]:
    """Read variables with our prefix: what they set, and what the files that `..._FILE` ones name set."""
    by_name = {variable(path): path for path in known}
    direct, filed = Layer(), Layer()
    for name, value in variables.items():
        upper = name.upper()
        if not upper.startswith(PREFIX) or not value or _is_not_for_us(upper, value):
            continue
        here = f"{place} {name}"
        if upper in by_name:
            direct = _value(by_name[upper], value, here).over(direct)
        elif upper.endswith("_FILE") and upper.removesuffix("_FILE") in by_name:
            filed = _file_value(by_name[upper.removesuffix("_FILE")], Path(value), here).over(filed)
        else:
            direct = _wrong(here, _unknown(upper, by_name)).over(direct)
    return direct, filed


def from_secrets(directory: Path, *, known: Collection[tuple[str, ...]], place: str) -> Layer:
    """Read a directory of files that are named, in either case, as the environment variables; others are let be."""
    by_name = {variable(path): path for path in known}
    layer = Layer()
    try:
        files = sorted(directory.iterdir())
    except OSError as error:
        return _wrong(place, explained(error))
    for file in files:
        upper = file.name.upper()
        if upper in by_name:
            layer = _file_value(by_name[upper], file, f"secret file {file}").over(layer)
        elif upper.startswith(PREFIX):
            layer = _wrong(f"secret file {file}", _unknown(upper, by_name)).over(layer)
    return layer


def from_file(path: Path, *, place: str) -> Layer:
    """Read a YAML file; `place` is where its path was given."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return _wrong(place, explained(error))
    except UnicodeDecodeError:
        return _wrong(str(path), "is not UTF-8 text")
    places: dict[Place, str] = {(): str(path)}
    try:
        values = yaml.safe_load(text)
        wrong = _places(yaml.compose(text, Loader=yaml.SafeLoader), (), str(path), places)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of the 31st of February
        return _wrong(*_broken(path, error))
    except RecursionError:
        return _wrong(str(path), "is nested too deeply, or in itself by an alias")
    if values is not None and not isinstance(values, dict):
        return _wrong(str(path), "must be a mapping of settings")
    named = {key: value for key, value in (values or {}).items() if isinstance(key, str)}
    if len(named) < len(values or {}):
        wrong.append(
            SettingError(place=str(path), message="has a key that is not text; the settings are named in words")
        )
    return Layer(values=named, places=places, errors=tuple(wrong))


def _places(node: Any, above: Place, file: str, places: dict[Place, str]) -> list[SettingError]:
    """Note where each key and item stands, and return the keys that stand twice, of which YAML would take the last."""
    twice: list[SettingError] = []
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key, child) for key, child in node.value if isinstance(key, yaml.ScalarNode)]
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, child, child) for index, child in enumerate(node.value)]
    else:
        children = []
    seen: set[str | int] = set()
    for step, marked, child in children:
        path = (*above, step)
        places[path] = f"{file}: line {marked.start_mark.line + 1}: {dotted(path)}"
        if step in seen:
            twice.append(SettingError(place=places[path], message="stands here a second time; keep one"))
        seen.add(step)
        twice += _places(child, path, file, places)
    return twice


def _broken(path: Path, error: Exception) -> tuple[str, str]:
    """Say where and why; the parser's own words stop before it quotes the file, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    problem = re.split("['\"]", getattr(error, "problem", None) or "a character or value that YAML does not allow")[0]
    place = f"{path}: line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
    reason = problem.strip().removesuffix(", but found")
    return place, f"is not YAML ({reason}); mind the indentation, and quote text that has special characters"


def _value(path: tuple[str, ...], value: object, place: str) -> Layer:
    *above, last = path
    nested = {last: value}
    for name in reversed(above):
        nested = {name: nested}
    return Layer(values=nested, places={path: place})


def _file_value(path: tuple[str, ...], file: Path, place: str) -> Layer:
    try:
        return _value(path, read_secret(file), place)
    except OSError as error:
        return _wrong(place, explained_secret(error))


def _wrong(place: str, message: str) -> Layer:
    return Layer(errors=(SettingError(place=place, message=message),))


def _unknown(name: str, by_name: Mapping[str, object]) -> str:
    if name.startswith(variable(("servers",))):
        return "is not a setting; several servers are given as `servers` in the configuration file"
    known = [other.removeprefix(PREFIX) for other in by_name]
    return not_a_setting(name.removeprefix(PREFIX), known, prefix=PREFIX)


def _is_not_for_us(name: str, value: str) -> bool:
    rest = name.removeprefix(PREFIX)
    url = rest.rpartition("_")[2] == "PORT" and _SERVICE_URL.match(value)
    return bool(rest.lower() in LOADING or _SERVICE_LINK.fullmatch(rest) or url)


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: _merged(low[name], high[name]) for name in low.keys() & high.keys() if _nested(low[name], high[name])}
    return {**low, **high, **both}


def _nested(*values: object) -> bool:
    return all(isinstance(value, dict) for value in values)
