"""Read YAML with the line of each value, at a bounded cost, and without the surprises of YAML 1.1.

PyYAML speaks YAML 1.1, in which `0100` is 64, `1:30` is 90, and `no` is false. Here plain values mean what they mean in
YAML 1.2: `true` and `false` are the only booleans, and numbers are decimal. What begins with a zero stays text, from
which a setting reads the same number as from an environment variable.

An alias is a reference, so a few bytes can stand for gigabytes. Values that would be too large with every alias
written out are refused before anything is made of them.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from pgwatch_sessions.settings.errors import KeyPath, PlacedError, SettingError, dotted

_PLAIN_VALUES = {
    "null": (r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    "merge": (r"<<", ["<"]),
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types here
    yaml_implicit_resolvers: Mapping[str, Any] = {}


for _name, (_pattern, _first) in _PLAIN_VALUES.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})\\Z"), _first)


class Document(NamedTuple):
    """The content of a file."""

    values: Any
    #: The place of each key and list item.
    places: Mapping[KeyPath, str]
    errors: tuple[SettingError, ...]


def read_document(text: str, file: str, *, max_size: int) -> Document:
    """Read the text of a file. `max_size` bounds its characters, with every alias written out.

    Raises PlacedError, which quotes nothing of the file: it may have secrets.
    """
    places: dict[KeyPath, str] = {(): file}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            size = _size(node, {})
            if size > max_size:
                message = f"too large: its aliases (*name) stand for more than {max_size // 1024} KiB; write fewer"
                raise PlacedError(file, message)
            duplicates = _note_places(node, (), file, places)
            values = loader.construct_document(node) if node else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _syntax_error(file, error) from None
    except RecursionError:
        raise PlacedError(file, "nested too deeply, or inside itself by an alias; remove that") from None
    except (ValueError, TypeError) as error:  # a value that is not what its own tag says, such as `!!int x`
        if isinstance(error, PlacedError):
            raise
        raise _syntax_error(file, error) from None
    return Document(values, places, tuple(duplicates))


def _size(node: yaml.Node | None, known: dict[int, int | None]) -> int:
    """Return the number of characters and nodes, with aliases written out. Each node is visited once."""
    if node is None:
        return 0
    if node.id == "scalar":
        return 1 + len(node.value)
    if id(node) not in known:
        known[id(node)] = None
        children = (part for pair in node.value for part in pair) if node.id == "mapping" else node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    size = known[id(node)]
    if size is None:
        raise RecursionError
    return size


def _note_places(node: Any, above: KeyPath, file: str, places: dict[KeyPath, str]) -> list[SettingError]:
    """Note the place of each key and list item. Return duplicate keys, of which YAML would silently use the last."""
    duplicates: list[SettingError] = []
    kind = node.id if node else "nothing"
    if kind == "mapping":
        children = [(key.value, key, child) for key, child in node.value if key.id == "scalar"]
    elif kind == "sequence":
        children = [(index, child, child) for index, child in enumerate(node.value)]
    else:
        children = []
    lines: dict[str | int, int] = {}
    for step, marked, child in children:
        path, line = (*above, step), marked.start_mark.line + 1
        places[path] = f"{file} line {line}: {dotted(path)}"
        if step in lines:
            message = f"duplicate key, also on line {lines[step]}; remove one"
            duplicates.append(SettingError(place=places[path], message=message))
        lines[step] = line
        duplicates += _note_places(child, path, file, places)
    return duplicates


def _syntax_error(file: str, error: Exception) -> PlacedError:
    """Return place and message. The parser's own message is cut before it quotes the file, which may have secrets."""
    mark = getattr(error, "problem_mark", None)
    problem = re.split("['\"]", getattr(error, "problem", None) or "a character or value that YAML does not allow")[0]
    place = f"{file} line {mark.line + 1}, column {mark.column + 1}" if mark else file
    reason = problem.strip().removesuffix(", but found")
    return PlacedError(place, f"invalid YAML ({reason}); check the indentation, and quote text with special characters")
