"""Writes tags as a comment in the form of sqlcommenter: `/*application='orders',route='/orders/{id}'*/ SELECT …`.

The comment is at the beginning, because the server cuts long statements at their end.
"""

import os
import re
from collections.abc import Mapping
from functools import lru_cache

#: In this order. A closed set with few values each: every value makes another text, and drivers and servers keep a
#: prepared statement for each text. So no traceparent and no value of a request.
KEYS = ("application", "route", "controller", "job", "file", "line", "func")
#: Characters of a value. Of a longer file, the end is kept.
MAX_LENGTHS = {"route": 120, "file": 80, "func": 60}
_MAX_OTHER = 100

#: No quotes and no `*`, which could end the comment, and no `%`, at which psycopg raises.
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.~/:{} -]")
#: A hint for pg_hint_plan, which reads only the first comment; statements that begin or end a transaction, which
#: proxies look for; and those that reset a session.
_UNTAGGED = re.compile(
    r"\s*(?:/\*\+|(?:BEGIN|START|COMMIT|END|ABORT|DISCARD|DEALLOCATE|RESET|CLOSE|UNLISTEN)\b|ROLLBACK\b(?!\s+TO\b)"
    r"|SELECT pg_advisory_unlock_all\(\)|;?\s*\Z)",
    re.IGNORECASE,
)


def comment_of(tags: Mapping[str, str]) -> str:
    """Return the tags as a comment with a space after it; an empty text if there are none."""
    pairs = [f"{key}='{_written(key, tags[key])}'" for key in KEYS if tags.get(key)]
    return f"/*{','.join(pairs)}*/ " if pairs else ""


@lru_cache(maxsize=1024)
def takes_comment(statement: str) -> bool:
    """Return whether a statement may begin with a comment."""
    return _UNTAGGED.match(statement) is None


def is_switched_off() -> bool:
    """Return whether the environment says `PGWATCH_SESSIONS_TAGS=off`."""
    return os.environ.get("PGWATCH_SESSIONS_TAGS", "").strip().lower() in {"off", "0", "false", "no"}


def _written(key: str, value: str) -> str:
    length = MAX_LENGTHS.get(key, _MAX_OTHER)
    cut = value[-length:] if key == "file" else value[:length]
    return _FORBIDDEN.sub("_", cut)
