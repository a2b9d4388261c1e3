"""Reads the tags that libraries write into comments of statements: which application sent it, from which place.

Two written forms are known: sqlcommenter's `key='value',…` (URL-encoded, then quoted; OpenTelemetry writes Python
reprs of it and doubles each `%` for drivers that interpolate) and Rails' older `key:value,…`.
"""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

from pgwatch_sessions.core.statements.redaction import Comment

#: Pairs of key and value, sorted by key.
Tags = tuple[tuple[str, str], ...]

#: A closed set. Tags that change with each request, such as traceparent, are never kept.
KEYS = frozenset(
    {
        *("route", "controller", "namespaced_controller", "action", "job"),
        *("file", "line", "func", "source_location"),  # the last one is Rails'
        *("code.file.path", "code.line.number", "code.function.name"),  # OpenTelemetry's
        *("code.filepath", "code.lineno", "code.function"),  # the same before 2025
        *("application", "app_name", "ddps", "dddbs"),  # the last two are Datadog's
        *("framework", "db_framework", "db_driver"),
    }
)
MAX_VALUE_LENGTH = 200

# A pair ends at a comma or at the end of its comment. An unquoted value at the end of a cut comment may be incomplete.
_PAIR = re.compile(
    r"""\s*(?P<key>[\w.%-]+)\s*
        (?:=\s*(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,'"]+))
          |:\s*(?P<legacy>[^\s,]+(?::in[ ][`'][^`',]*')?))
        \s*(?:(?P<comma>,)|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def tags_of(comments: Iterable[Comment]) -> Tags:
    """Return the known tags of comments. The first of a key counts, because the server may cut off later ones."""
    found: dict[str, str] = {}
    for comment in comments:
        for key, value in _pairs(comment):
            if key in KEYS and value:
                found.setdefault(key, value)
    return tuple(sorted(found.items()))


def written(tags: Tags) -> str:
    """Return the tags as a comment in the form of sqlcommenter; an empty text if there are none."""
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
