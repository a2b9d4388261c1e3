"""Names the client that a session belongs to."""

import re
from functools import lru_cache

from pgwatch_sessions.core.model import NONE, Client
from pgwatch_sessions.core.statements import Statement

#: PgBouncer's application_name_add_host appends " - host:port". The port differs from session to session.
_POOLER_SUFFIX = re.compile(r" - (?:\[?[0-9A-Fa-f:.]+\]?|[\w.-]+):\d+$")
#: Tags that name the application, the most specific first; `ddps` and `dddbs` are Datadog's names of a service.
_APPLICATION_KEYS = ("application", "app_name", "ddps", "dddbs")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@lru_cache(maxsize=4096)
def client_of(database: str | None, user: str | None, application_name: str | None, tagged: str | None) -> Client:
    """Return the client. A blank application_name is replaced by `tagged`, the application in the statement's tags."""
    application = _printable(_POOLER_SUFFIX.sub("", application_name or "")) or _printable(tagged or "")
    return Client(_printable(database or "") or NONE, _printable(user or "") or NONE, application or NONE)


def tagged_application(statement: Statement) -> str | None:
    """Return the application named in the statement's comment tags, None if there is none."""
    if not statement.tags:
        return None
    tags = dict(statement.tags)
    return next((tags[key] for key in _APPLICATION_KEYS if key in tags), None)


@lru_cache(maxsize=4096)
def _printable(name: str) -> str:
    return _UNPRINTABLE.sub("?", name).strip()
