"""The values of a JSON document, each of the type it must have or not known. Errors name the key, never the value."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, NoReturn, TypeVar

from pgwatch_sessions.recording.times import seconds_of

Row = Mapping[str, Any]
Member = TypeVar("Member")

#: Names in PostgreSQL have 63 bytes.
MAX_TEXT_LENGTH = 1000
#: Beyond any number that PostgreSQL has.
_INTEGER_BOUND = 2**63
_MILLISECONDS = 1000.0
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


class InvalidError(ValueError):
    """What is wrong with a line, for a human."""


def document_of(line: bytes) -> Row:
    """Parse a line, which must be one JSON object in UTF-8."""
    try:
        document = json.loads(line.decode(), parse_constant=_refuse)
        if _HALF_PAIR.search(line):
            json.dumps(document, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except UnicodeError:
        raise InvalidError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidError(f"not JSON at column {error.colno}") from None
    except ValueError:  # of int(), which refuses thousands of digits, and of _refuse
        raise InvalidError("a number that is none") from None
    return _object(document, "the line")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _object(value: object, called: str) -> Row:
    if type(value) is not dict:
        raise InvalidError(f"{called} is not an object")
    return value


def section(row: Row, key: str) -> Row:
    """Return an object of its own; an empty one when not known."""
    value = row.get(key)
    return {} if value is None else _object(value, key)


def objects(row: Row, key: str) -> list[Row]:
    """Return a list of objects; an empty one when not known."""
    value = row.get(key)
    if value is None:
        return []
    if type(value) is not list:
        raise InvalidError(f"{key} is not a list")
    return [_object(item, f"{key}[{index}]") for index, item in enumerate(value)]


def text(row: Row, key: str, *, bounded: bool = True) -> str | None:
    """Return a text as it is."""
    value = row.get(key)
    if value is None:
        return None
    if type(value) is not str:
        raise InvalidError(f"{key} is not a text")
    if bounded and len(value) > MAX_TEXT_LENGTH:
        raise InvalidError(f"{key} is longer than {MAX_TEXT_LENGTH} characters")
    return value


def plain_text(row: Row, key: str) -> str | None:
    """Return a text fit for a terminal."""
    value = text(row, key)
    return value if value is None or value.isprintable() else _printable(value)


@lru_cache(maxsize=256)
def _printable(value: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in value)


def integer(row: Row, key: str, *, called: str | None = None) -> int | None:
    """Return a whole number. `called` stands for a key that is itself a value."""
    value = row.get(key)
    if value is None:
        return None
    if type(value) is not int or not -_INTEGER_BOUND <= value < _INTEGER_BOUND:
        raise InvalidError(f"{called or key} is not a whole number")
    return value


def integers(row: Row, key: str) -> tuple[int, ...]:
    """Return a list of whole numbers; an empty one when not known."""
    value = row.get(key)
    if not value and (value is None or type(value) is list):
        return ()
    if type(value) is not list or not all(type(item) is int for item in value):
        raise InvalidError(f"{key} is not a list of whole numbers")
    return tuple(value)


def milliseconds(row: Row, key: str) -> float | None:
    """Return a duration in seconds."""
    value = row.get(key)
    if value is None:
        return None
    if (type(value) is not int and type(value) is not float) or not isfinite(value):
        raise InvalidError(f"{key} is not a number")
    return float(value / _MILLISECONDS)


def truth(row: Row, key: str) -> bool | None:
    """Return true or false."""
    value = row.get(key)
    if value is not None and type(value) is not bool:
        raise InvalidError(f"{key} is neither true nor false")
    return value


def time(row: Row, key: str) -> float | None:
    """Return a time as seconds since the epoch."""
    value = row.get(key)
    if value is None:
        return None
    if type(value) is not str:
        raise InvalidError(f"{key} is not a time")
    try:
        return seconds_of(value)
    except (ValueError, OverflowError):
        raise InvalidError(f"{key} is not a time with a time zone") from None


def member(row: Row, key: str, members: Mapping[str, Member]) -> Member | None:
    """Return which of a closed set a text names."""
    value = row.get(key)
    if value is None:
        return None
    if type(value) is not str or value not in members:
        raise InvalidError(f"{key} is none of those that are known")
    return members[value]
