"""The line of code that the tags of a statement name: `orders.py:41 in read_order`.

`pgwatch_sessions.pools` writes the line that borrowed the connection. Rails (`source_location`), Marginalia (`line`)
and OpenTelemetry (`code.*`) write the line that made the query. Either leads to the code that holds the session.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from pgwatch_sessions.core.statements.tags import Tags

#: Characters of a path; of a longer one, the end is kept, because it has the file's name.
MAX_FILE_LENGTH = 80
MAX_FUNCTION_LENGTH = 60

#: The same value under the names that libraries have given it. The first that is present counts.
_FILES = ("file", "code.file.path", "code.filepath")
_LINES = ("line", "code.line.number", "code.lineno")
_FUNCTIONS = ("func", "code.function.name", "code.function")
#: Tags with file, line and function in one value, as Ruby writes them.
_LOCATIONS = ("source_location", "line")

_LOCATION = re.compile(r"(?P<file>.*[^:0-9].*?):(?P<line>[0-9]{1,7})(?::in [`'](?P<function>.*?)'?)?")
_NUMBER = re.compile(r"[0-9]{1,7}")


class CodeLine(NamedTuple):
    """A line of code. Each part is bounded."""

    #: The path as it was tagged, usually relative to the application's folder.
    file: str
    #: None if the tags name the file only.
    line: int | None
    #: Empty if it is not known.
    function: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place} in {self.function}" if self.function else place


@lru_cache(maxsize=4096)
def code_line_of(tags: Tags) -> CodeLine | None:
    """Return the line of code that the tags name; None if they name no file."""
    values = dict(tags)
    file, line, function = (
        next((values[key] for key in keys if key in values), "") for keys in (_FILES, _LINES, _FUNCTIONS)
    )
    if not file:
        location = next(
            (match for key in _LOCATIONS if (match := _LOCATION.fullmatch(values.get(key, ""))) is not None), None
        )
        if location is None:
            return None
        file, line, function = location["file"], location["line"], function or location["function"] or ""
    return CodeLine(
        file if len(file) <= MAX_FILE_LENGTH else f"…{file[1 - MAX_FILE_LENGTH :]}",
        int(line) if _NUMBER.fullmatch(line) else None,
        function[:MAX_FUNCTION_LENGTH],
    )
