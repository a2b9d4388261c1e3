"""Key=value connection strings, such as `host=db port=5432 password='it''s'`, with libpq's quoting.

The rules are those of conninfo_parse in PostgreSQL's fe-connect.c: white space separates the pairs and may surround the
equals sign; single quotes enclose a value with white space; a backslash takes the next character as it is.
"""

import re
from collections.abc import Iterator, Mapping

_KEY = re.compile(r"\s*(?P<key>\w+)\s*=\s*", re.ASCII)
_QUOTED = re.compile(r"'(?P<text>(?:[^'\\]|\\.)*)'(?=\s|$)", re.DOTALL)
_BARE = re.compile(r"(?P<text>(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)(?=\s|$)", re.DOTALL)


def looks_like_key_values(text: str) -> bool:
    """Return whether the text begins as a key=value connection string does."""
    return bool(_KEY.match(text)) and "://" not in text.partition("=")[0]


def read_key_values(text: str) -> Iterator[tuple[str, str]]:
    """Yield keys and values. Raises ValueError, whose message shows nothing of the text."""
    rest = text.strip()
    while rest:
        key = _KEY.match(rest)
        value = key and (_QUOTED.match(rest, key.end()) or _BARE.match(rest, key.end()))
        if not key or not value:
            raise ValueError(
                "invalid key=value pairs; write host=db user=x, and put values with spaces in single quotes: "
                r"password='a b', in which ' is \' and \ is \\"
            )
        yield key["key"], re.sub(r"\\(.)", r"\1", value["text"], flags=re.DOTALL)
        rest = rest[value.end() :].lstrip()


def write_key_values(pairs: Mapping[str, str]) -> str:
    """Return the connection string that `read_key_values` reads as these pairs."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in pairs.items())


def _quoted(value: str) -> str:
    if value and not re.search(r"[\s'\\]", value):
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"
