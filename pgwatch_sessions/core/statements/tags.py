"""Tags that libraries write into comments of statements: who sent this, from where.

Two written forms are known: sqlcommenter's `key='value',…` (URL-encoded, then quoted; OpenTelemetry writes Python
reprs of it and doubles each `%` for drivers that interpolate) and Rails' older `key:value,…`.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

from pgwatch_sessions.core.statements.redaction import Comment

#: Pairs of key and value, sorted by key.
Tags = tuple[tuple[str, str], ...]

#: A closed set, so that nothing that changes with each request (traceparent) is ever kept.
KEYS = frozenset(
    {"route", "controller", "action", "application", "app_name", "framework", "db_driver", "job", "file", "func"}
)
MAX_VALUE_LENGTH = 200

# A pair ends at a comma or at the end of its comment; one without quotes that a cut ends may be half of it.
_PAIR = re.compile(
    r"""\s*(?P<key>[\w.%-]+)\s*
        (?:=\s*(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,'"]+))
          |:\s*(?P<legacy>[^\s,]+))
        \s*(?:(?P<comma>,)|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def tags_of(comments: Iterable[Comment]) -> Tags:
    """Return the known tags of comments; the first of a key counts, as a later one may be cut off another time."""
    found: dict[str, str] = {}
    for comment in comments:
        for key, value in _pairs(comment):
            if key in KEYS and value:
                found.setdefault(key, value)
    return tuple(sorted(found.items()))


def written(tags: Tags) -> str:
    """Write tags as a comment in sqlcommenter's form; nothing for none."""
    pairs = ",".join(f"{key}='{quote(value, safe='/')}'" for key, value in tags)
    return f"/*{pairs}*/" if pairs else ""


def _pairs(comment: Comment) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(comment.body) and (pair := _PAIR.match(comment.body, position)):
        position = pair.end()
        quoted = pair["single"] or pair["double"] or ""
        if quoted:
            yield pair["key"], _decoded(_ESCAPED.sub(r"\1", quoted))
        elif comment.complete or pair["comma"]:
            yield pair["key"], _decoded(pair["bare"] or pair["legacy"] or "")


def _decoded(value: str) -> str:
    plain = unquote(value.replace("%%", "%"))
    return "".join(character for character in plain if character.isprintable()).strip()[:MAX_VALUE_LENGTH].rstrip()
