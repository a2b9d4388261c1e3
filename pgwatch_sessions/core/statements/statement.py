"""A session's last statement, parsed. Results are cached, because polls return the same texts again and again."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pgwatch_sessions.core.statements.code_lines import CodeLine, code_line_of
from pgwatch_sessions.core.statements.commands import only_sql
from pgwatch_sessions.core.statements.kinds import StatementKind, kind_of, writes
from pgwatch_sessions.core.statements.redaction import scan
from pgwatch_sessions.core.statements.summary import shortened, summary_of
from pgwatch_sessions.core.statements.tags import Tags, tags_of, written

#: Longer texts are cut before they are parsed. The server's default is 1023 bytes.
MAX_INPUT_LENGTH = 8192
MAX_SITE_LENGTH = 120
_ORDINARY_LENGTH = 1024

#: What the server shows instead of a text.
_HIDDEN_TEXTS = frozenset(
    {"<insufficient privilege>", "<backend information not available>", "<command string not enabled>"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A parsed last statement. Nothing in it comes from a literal."""

    #: The redacted text.
    text: str
    kind: StatementKind
    tags: Tags
    #: Verb and tables, at most 60 characters; never empty.
    summary: str
    #: Whether it changes data or the schema, or locks rows.
    writes: bool = False

    @property
    def site(self) -> str:
        """Its origin: route, controller, job or function, else verb and tables. At most 120 characters."""
        return _site_of(self.tags, self.summary)

    @property
    def code_line(self) -> CodeLine | None:
        """The line of code in its tags; None if they name none."""
        return code_line_of(self.tags) if self.tags else None

    @property
    def recordable(self) -> str | None:
        """The text with its tags as a comment. It parses to an equal statement. None if the text is not known."""
        if self.kind is StatementKind.UNKNOWN or (self.kind is not StatementKind.NEVER_USED and not self.text):
            return None
        return " ".join(filter(None, (written(self.tags), self.text)))


@lru_cache(maxsize=4096)
def _site_of(tags: Tags, summary: str) -> str:
    values = dict(tags)
    controller, file = values.get("namespaced_controller") or values.get("controller"), values.get("file")
    site = (
        values.get("route")
        or (controller and "#".join(filter(None, (controller, values.get("action")))))
        or values.get("job")
        or (file and ":".join(filter(None, (file, values.get("func")))))
        or values.get("func")
        or summary
    )
    return shortened(site, MAX_SITE_LENGTH)


#: The text is hidden from the monitoring role, or missing from a recording.
UNKNOWN_STATEMENT = Statement(text="", kind=StatementKind.UNKNOWN, tags=(), summary="(unknown)")


def parse_statement(sql: str | None) -> Statement:
    """Parse a statement's text; None means that it is not known."""
    if sql is None or sql in _HIDDEN_TEXTS:
        return UNKNOWN_STATEMENT
    return _parse(sql) if len(sql) <= _ORDINARY_LENGTH else _parse_long(sql[:MAX_INPUT_LENGTH])


def _parse_anew(sql: str) -> Statement:
    scanned = scan(sql)
    # A comment alone (pgx's `-- ping`) does nothing, like `;`. But unlike an empty text it was sent.
    shape = _shape(scanned.redacted or (";" if sql else ""))
    return Statement(
        text=shape.text,
        kind=shape.kind,
        tags=tags_of(scanned.comments) if scanned.comments else (),
        summary=shape.summary,
        writes=shape.writes,
    )


# Two caches, because long texts (a large track_activity_query_size) must not fill the memory.
_parse = lru_cache(maxsize=4096)(_parse_anew)
_parse_long = lru_cache(maxsize=256)(_parse_anew)


class _Shape(NamedTuple):
    """The part of a statement that depends on the redacted text only."""

    text: str
    kind: StatementKind
    summary: str
    writes: bool


# Texts that differ only in their literals share an entry. Some applications write values into every statement.
@lru_cache(maxsize=1024)
def _shape(redacted: str) -> _Shape:
    text = only_sql(redacted)
    return _Shape(text, kind_of(text), summary_of(text) or "(none)", writes(text))
