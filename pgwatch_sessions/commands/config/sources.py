"""The settings in effect with the place of each: as a table for people, or as YAML that can be loaded again."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pgwatch_sessions.settings.connection_parameters import Parameter, effective_parameters
from pgwatch_sessions.settings.errors import KeyPath
from pgwatch_sessions.settings.loading import LoadedSettings, to_yaml
from pgwatch_sessions.settings.model import ServerSettings
from pgwatch_sessions.terminal import Colour, Paint, table
from pgwatch_sessions.wording.labels import printable

_DEFAULT = "default"
#: Characters of a value in the table. The YAML has all of them.
_LONGEST = 60


class _Row(NamedTuple):
    name: str
    value: str
    source: str


def table_lines(loaded: LoadedSettings, paint: Paint) -> Iterator[str]:
    """Yield the lines of one table for each server, with its connection, and one for all other settings."""
    values = loaded.settings.model_dump(mode="json")
    for index, server in enumerate(loaded.settings.servers):
        rows = [
            _Row(name, _text(value), _source(("servers", index, name), loaded.places))
            for name, value in values["servers"][index].items()
        ]
        rows += [_Row(*parameter) for parameter in _connection(server, index, loaded)]
        yield from _titled(f"server {server.name}", rows, paint)
        yield ""
    others = [row for name, value in values.items() if name != "servers" for row in _rows(name, value, loaded.places)]
    yield from _titled("settings", others, paint)


def _rows(name: str, value: Any, places: Mapping[KeyPath, str]) -> Iterator[_Row]:
    """Yield the row of a setting; of a list one for each item."""
    if not isinstance(value, list):
        yield _Row(name, _text(value), _source((name,), places))
    elif not value:
        yield _Row(name, "-", _source((name,), places))
    for index, item in enumerate(value if isinstance(value, list) else ()):
        text = ", ".join(f"{key}: {_text(part)}" for key, part in item.items())
        yield _Row(f"{name}[{index}]", text, _source((name, index), places))


def yaml_lines(loaded: LoadedSettings) -> Iterator[str]:
    """Yield the lines of a configuration file. Comments say where settings and connections come from."""
    name, above = "", KeyPath()
    connection: list[Parameter] = []
    for line in to_yaml(loaded.settings).splitlines():
        if not line.startswith(" "):
            yield from _comments(connection)
            connection = []
        if line.startswith("- "):
            index = int(above[1]) + 1 if above else 0
            above = (name, index)
            if name == "servers":
                connection = list(_connection(loaded.settings.servers[index], index, loaded))
        elif not line.startswith(" "):
            name, above = line.partition(":")[0], ()
        match = re.match(r"[- ]*(\w+): .", line)
        yield f"{line}  # {_source((*above, match[1]), loaded.places)}" if match else line
    yield from _comments(connection)


def _comments(connection: list[Parameter]) -> Iterator[str]:
    if connection:
        yield "  # The connection is made with:"
        yield from (f"  #   {line}" for line in table(("parameter", "value", "from"), connection))


def _titled(title: str, rows: list[_Row], paint: Paint) -> Iterator[str]:
    yield paint(printable(title), Colour.BOLD)
    _, *lines = table(("", "", ""), [row._replace(value=_cut(row.value)) for row in rows])
    yield from (f"  {printable(line)}" for line in lines)


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"


def _connection(server: ServerSettings, index: int, loaded: LoadedSettings) -> Iterator[Parameter]:
    place = _source(("servers", index, "dsn"), loaded.places)
    of_this = loaded.dsn_parts if ("servers", 0) not in loaded.places else {}
    for parameter in effective_parameters(
        server.dsn.get_secret_value() if server.dsn else None,
        password_file=server.password_file,
        source_of=lambda keyword: _short(of_this.get(keyword, place)),
        environ=os.environ,
    ):
        yield parameter._replace(value=printable(parameter.value), source=printable(parameter.source))


def _source(path: KeyPath, places: Mapping[KeyPath, str]) -> str:
    """Return where a setting was given. The settings of the one server have places without `servers`."""
    place = places.get(path)
    if place is None and path[:2] == ("servers", 0):
        place = places.get(path[2:])
    if place is None:
        return "default: its host and port, or its service" if path[-1] == "name" else _DEFAULT
    return _short(place)


def _short(place: str) -> str:
    """Return the place without the setting's name, which is beside it."""
    return re.sub(r"^(.* line \d+): .*", r"\1", place)


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
