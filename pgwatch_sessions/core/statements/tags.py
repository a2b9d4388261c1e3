"""Reads the tags that libraries write into comments of statements: which application sent it, from which place.

Two written forms are known: sqlcommenter's `key='value',…` (URL-encoded, then quoted; OpenTelemetry writes Python
reprs of it and doubles each `%` for drivers that interpolate) and Rails' older `key:value,…`.

A value becomes a label, so it must be a template. Of one that was made from a request (`/orders/4711?mail=…`), what is
no template is cut off or becomes `{}`: `/orders/{}`.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
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
#: Their values are numbers, or end with one: `app/orders.rb:41`.
_LINES = frozenset({"line", "code.line.number", "code.lineno", "source_location"})
_LINE_NUMBER = re.compile(r"(?:\A|:)[0-9]{1,7}(?=\Z|:in )")
#: Their values come from the configuration of a program, as its application_name does.
_OF_PROGRAMS = frozenset({*("application", "app_name", "ddps", "dddbs"), *("framework", "db_framework", "db_driver")})
#: Their values are made for a request, if a library does not know the template.
_OF_REQUESTS = frozenset({"route", "job"})

# A pair ends at a comma or at the end of its comment. An unquoted value at the end of a cut comment may be incomplete.
_PAIR = re.compile(
    r"""\s*(?P<key>[\w.%-]+)\s*
        (?:=\s*(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,'"]+))
          |:\s*(?P<legacy>[^\s,]+(?::in[ ][`'][^`',]*')?))
        \s*(?:(?P<comma>,)|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

#: A query string. In the pattern of a route, `(?` begins a group.
_QUERY = re.compile(r"(?<!\()\?.*|\?(?![P:<]).*")
_BEGIN, _END = r"(?<![^\W_])", r"(?![^\W_])"
_LETTER, _LETTER_OR_DIGIT = r"[^\W\d_]", r"[^\W_]"
#: What is no template: an address, or a number as a segment of its own; and among the words of a segment a UUID, hex
#: digits, more than three digits, digits and letters in turn, and long words with a digit.
_NO_TEMPLATE = re.compile(
    rf"""
      (?<![^\s/@])[^\s/@]+@[^\s/]+
    | (?<![^/])[+-]?[0-9][0-9.,:_+-]*(?![^/])
    | (?<![^/])(?=[a-f:]*[0-9])(?=[0-9a-f]*:[0-9a-f]*:)[0-9a-f:]+(?![^/])
    | {_BEGIN}[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}{_END}
    | {_BEGIN}[0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}}{_END}
    | {_BEGIN}eyJ[\w.-]*
    | {_BEGIN}(?:
          (?=[a-f]*[0-9])[0-9a-f]{{8,}}
        | (?=(?:{_LETTER}*[0-9]){{4}}){_LETTER_OR_DIGIT}+
        | (?={_LETTER}*[0-9]+{_LETTER}+[0-9]){_LETTER_OR_DIGIT}{{8,}}
        | (?={_LETTER}*[0-9]){_LETTER_OR_DIGIT}{{20,}}
      ){_END}
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: A segment like `dBjftJeZ4CVP-mB92K27uhbUJU1p1r`. In code, a class may be called so.
_TOKEN_SEGMENT = re.compile(r"(?<![^/])(?=[^/]*[0-9])(?=[^/]*[A-Z])[\w~=+.-]{20,}(?![^/])")


def tags_of(comments: Iterable[Comment]) -> Tags:
    """Return the known tags of comments. The first of a key counts, because the server may cut off later ones."""
    found: dict[str, str] = {}
    for comment in comments:
        for key, value in _pairs(comment):
            if key in KEYS and (kept := _template(key, value)):
                found.setdefault(key, kept)
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
    return "".join(character for character in plain if character.isprintable())


@lru_cache(maxsize=1024)
def _template(key: str, value: str) -> str:
    """Return a tag's value without what is no template. It stays the same if this is done again."""
    if key in _OF_PROGRAMS:
        return value.strip()[:MAX_VALUE_LENGTH].rstrip()
    number = _LINE_NUMBER.search(value) if key in _LINES else None
    if number is not None:
        return _cut(key, value[: number.start()]) + number[0] + _cut(key, value[number.end() :])
    return _cut(key, value)


def _cut(key: str, value: str) -> str:
    short = _cleaned(key, value)
    # What is left of a cut segment may look like a number.
    return short if len(short) <= MAX_VALUE_LENGTH else _cleaned(key, short[:MAX_VALUE_LENGTH])[:MAX_VALUE_LENGTH]


def _cleaned(key: str, value: str) -> str:
    value = _QUERY.sub("", value).strip()
    if key in _OF_REQUESTS:
        value = _TOKEN_SEGMENT.sub("{}", value)
    return _NO_TEMPLATE.sub("{}", value)
