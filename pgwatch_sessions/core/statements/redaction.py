"""Removes literals from SQL text, whether it is complete, cut anywhere, or not SQL at all.

The tokens are those of PostgreSQL's scan.l. Where the text is ambiguous, less is printed:

* Whether a backslash escapes inside a plain '…' depends on `standard_conforming_strings`, which is not known here. If
  the literal would end in different places with and without escapes, the rest of the text is left out (`…`). The same
  test covers strings that continue on the next line and inherit the escapes of an E'…'.
* The server cuts the text at `track_activity_query_size`, so any token may be cut. A "name" without its closing quote
  is left out, because only a cut or broken statement has one.
* People write "values" in double quotes by mistake. A quoted name that is longer than names can be is left out.
* Word processors turn quotes into others, which are letters to PostgreSQL. The statement fails, and is shown all the
  same. From the first of them on, the text is left out. In another encoding they arrive as U+FFFD.
* MySQL's `names` are no names here, so they are left out.

What is no literal and a value nevertheless is masked in `unquoted`.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from pgwatch_sessions.core.statements.unquoted import without_unquoted_values

#: Quotes of word processors and of other languages; and control characters, which are quotes in WIN1252.
_QUOTES = r"\x80-\x9f\xab\xb4\xbb\u2018-\u201f\u2032-\u2037\u2039\u203a\u300c-\u300f\u301d-\u301f\uff02\uff07\uff40"
#: The characters of a name. To PostgreSQL every byte above ASCII is a letter; here, all but `_QUOTES`.
_START = (
    r"A-Za-z_\xa0-\xaa\xac-\xb3\xb5-\xba\xbc-\u2017\u2020-\u2031\u2038\u203b-\u300b\u3010-\u301c\u3020-\uff01"
    r"\uff03-\uff06\uff08-\uff3f\uff41-\ufffc\ufffe-\U0010ffff"
)
_PART = rf"{_START}0-9$\ufffd"

# Names of at most 63 characters (NAMEDATALEN - 1), `$1`, and signs, where neither a literal nor a comment begins.
_CODE = rf"""(?![ ])(?:
      [ ](?![\x00-\x20\x7f])
    | (?![eEbBnNxX]'|[uU]&')[{_START}][{_PART}]{{0,62}}(?![{_PART}])
    | [(),=;:<>*+%!@\#^&|~?\[\]{{}}\\]
    | \.(?![0-9])
    | -(?!-)
    | /(?!\*)
    | \$[0-9]{{1,5}}(?![0-9])
    | "[^"]{{1,63}}"(?!")
)+"""

# The scanner takes linear time, because it never backtracks: whatever ends a repetition matches what follows it.
# Possessive quantifiers would say so, but Python before 3.11.5 matches them wrongly
# (github.com/python/cpython/issues/106052).
_TOKEN = re.compile(
    rf"""
      (?P<code>{_CODE})
    | (?P<space>[\x00-\x20\x7f]+)
    | (?P<string>(?:[bBnNxX]|[uU]&)?'(?:[^'\\]+|'')*(?:'|\Z|(?P<doubt>(?=\\)))
               | [eE]'(?:[^'\\]+|\\.|'')*(?:'|\\?\Z))
    | (?P<number>(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?(?:[{_START}][{_PART}]*)?)
    | (?P<line_comment>--[^\n\r]*)
    | (?P<block_comment>/\*)
    | (?P<dollar_quote>\$(?:[{_START}][{_START}0-9]*)?\$)
    | (?P<backquoted>`[^`]*(?:`|\Z))
    | (?P<other_quote>[{_QUOTES}\ufffd])
    | (?P<quoted_name>"(?:[^"]+|"")*(?:"|(?P<unclosed>\Z)))
    | (?P<rest>\$(?:[{_START}][{_START}0-9]*\Z)?|[{_PART}]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"[\x00-\x20\x7f]*")
_PLAIN_STRING = re.compile(r"(?:[^']+|'')*(?:'|\Z)")
_ESCAPE_STRING = re.compile(r"(?:[^'\\]+|\\.|'')*(?:'|\\?\Z)", re.DOTALL)
_COMMENT_EDGE = re.compile(r"/\*|\*/")

# One redacted value, with its sign and a simple cast if there is one.
_VALUE = r"[-+]?\?(?:::[\w.]+(?:\[\])?)?(?=[ ,)\];]|\Z)"
_VALUES = re.compile(rf"({_VALUE})(?: ?, ?{_VALUE})+")
_ROWS = re.compile(r'(\((?:[^()"]|\([^()"]*\))*\))(?: ?, ?\1)+')


_BLANK = frozenset({"space", "line_comment", "block_comment"})
_STRINGS = frozenset({"string", "dollar_quote"})
_NAME_AND_QUOTES = 65
_ORDINARY_LENGTH = 1024


class Comment(NamedTuple):
    """The text of a comment, without its marks."""

    body: str
    #: False if the statement's text ended before the comment did.
    complete: bool


class Scan(NamedTuple):
    """A redacted statement and its comments."""

    redacted: str
    comments: tuple[Comment, ...]


def scan(sql: str) -> Scan:
    """Replace each literal by `?`, remove comments, and collapse white space and lists of values."""
    out = [""]
    comments: list[Comment] = []
    position, after_string = 0, False
    while token := _TOKEN.match(sql, position):  # the last alternative takes any character: only the end is none
        text, kind, position = token[0], token.lastgroup, token.end()
        if kind in _BLANK:
            position = _end_of_blank(sql, text, position, comments)
            if not out[-1].endswith(" "):
                out.append(" ")
            continue  # strings that only white space separates are one string: `after_string` stays
        if kind in _STRINGS:
            if not after_string:
                out.append("?")
            elif out[-1] == " ":
                out.pop()
            string_end = _end_of_string(sql, token)
            if string_end is None:
                out.append("…")
                break
            position = string_end
        elif kind == "other_quote":
            out.append("?…")
            break
        elif kind == "code" or _is_whole_name(token):
            out.append(text)
        else:
            out.append("?")
        after_string = kind in _STRINGS
    redacted = "".join(out)
    return Scan((_tidy if len(redacted) <= _ORDINARY_LENGTH else _tidy_anew)(redacted), tuple(comments))


def collapse_lists(text: str) -> str:
    """Reduce `?, ?, ?` to one value and `(?), (?)` to one row, so that texts do not differ by their number."""
    return _ROWS.sub(r"\1", _VALUES.sub(r"\1", text))


def _tidy_anew(text: str) -> str:
    text = collapse_lists(without_unquoted_values(text.strip(" ")))
    if text.isprintable():
        return text
    # Only names can still hold such characters. With `_` the name stays one name if this text is scanned again.
    return "".join(character if character.isprintable() else "_" for character in text)


# Texts that differ only in their literals share an entry. Long texts must not fill the memory.
_tidy = lru_cache(maxsize=1024)(_tidy_anew)


def _end(pattern: re.Pattern[str], sql: str, position: int) -> int:
    match = pattern.match(sql, position)
    return match.end() if match else position


def _is_whole_name(token: re.Match[str]) -> bool:
    name = token["quoted_name"]
    return name is not None and token["unclosed"] is None and len(name) <= _NAME_AND_QUOTES


def _end_of_string(sql: str, token: re.Match[str]) -> int | None:
    """Return the position where the string that begins with this token ends; None if that is in doubt."""
    if (opening := token["dollar_quote"]) is not None:
        closing = sql.find(opening, token.end())
        return len(sql) if closing < 0 else closing + len(opening)
    if token["doubt"] is None:
        return token.end()
    inside = sql.index("'", token.start()) + 1
    plain, escaped = _end(_PLAIN_STRING, sql, inside), _end(_ESCAPE_STRING, sql, inside)
    return plain if plain == escaped else None


def _end_of_blank(sql: str, opening: str, position: int, comments: list[Comment]) -> int:
    """Return where the white space or comment that begins with `opening` ends, and collect the comment."""
    if opening == "/*":
        position = _end_of_block_comment(sql, position, comments)
    elif opening.startswith("--"):
        comments.append(Comment(opening[2:], complete=position < len(sql)))
    return _end(_SPACE, sql, position)


def _end_of_block_comment(sql: str, start: int, comments: list[Comment]) -> int:
    depth = 1  # PostgreSQL's block comments nest
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            comments.append(Comment(sql[start : edge.start()], complete=True))
            return edge.end()
    comments.append(Comment(sql[start:], complete=False))
    return len(sql)
