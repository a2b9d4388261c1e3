"""Classifies a session's last statement by its text alone."""

import re
from enum import StrEnum

from pgwatch_sessions.core.statements.summary import tables_of


class StatementKind(StrEnum):
    """The class of a last statement. What it means depends on the session's state."""

    #: No statement yet, or only what drivers and applications send when they connect: settings, the server's version,
    #: the types in its catalogue.
    NEVER_USED = "never_used"
    #: A pool's reset or pre-ping, or the end of a transaction: the session was returned to its pool.
    RETURNED = "handed_back"
    #: A transaction was opened and nothing was done in it.
    TRANSACTION_OPENED = "transaction_opened"
    #: LISTEN, or an advisory lock for leader election: the session is meant to wait.
    LISTENING = "listening"
    #: `SELECT 1`: pools, balancers and applications all send it, so it proves nothing.
    PROBED = "probed"
    #: The application's own statement.
    APPLICATION = "application"
    #: The text is hidden from the monitoring role, or missing from a recording.
    UNKNOWN = "unknown"


_MODE = r"(?:ISOLATION LEVEL [A-Z]+(?: [A-Z]+)?|READ (?:WRITE|ONLY)|(?:NOT )?DEFERRABLE)"
_MODES = rf"(?: {_MODE}(?:(?: ,|,)? {_MODE})*)?"
_SETTING = r"(?:SESSION )?(?:[A-Z_]+ ?(?:=|TO)|TIME ZONE|NAMES|CHARACTERISTICS AS TRANSACTION) ?[^;]+"

_RETURN = (
    r"(?:ROLLBACK|COMMIT|END|ABORT)(?: WORK| TRANSACTION)?(?: AND NO CHAIN)?",
    r"DISCARD (?:ALL|PLANS|SEQUENCES|TEMP|TEMPORARY)",
    r"DEALLOCATE (?:PREPARE )?ALL",
    r"CLOSE ALL",
    r"UNLISTEN \*",
    r"RESET (?:ALL|ROLE|SESSION AUTHORIZATION)",
    r"SET SESSION AUTHORIZATION DEFAULT",
    r"SELECT (?:PG_CATALOG\.)?PG_ADVISORY_UNLOCK_ALL\(\)",
)

_LEADERSHIP = r"SELECT (?:PG_CATALOG\.)?PG_(?:TRY_)?ADVISORY_LOCK(?:_SHARED)?\([^()]*\)(?: (?:AS )?[A-Z_]+)?"

#: What a session is asked about itself when it is set up; also several at once.
_ABOUT_THE_SESSION = (
    r"(?:PG_CATALOG\.)?(?:SET_CONFIG|VERSION|CURRENT_SETTING|CURRENT_SCHEMAS?|CURRENT_DATABASE|PG_BACKEND_PID"
    r"|PG_IS_IN_RECOVERY)\([^()]*\)|CURRENT_(?:SCHEMA|USER|ROLE|CATALOG)|SESSION_USER"
)
_NAMED = rf"(?:{_ABOUT_THE_SESSION})(?:::[A-Z]+)?(?: (?:AS )?[A-Z_]+)?"
_QUESTIONS = rf"SELECT (?:\* FROM )?{_NAMED}(?: ?, ?{_NAMED})*"  # noqa: S608  a pattern

# Each matches one whole statement in upper case, without its literals. The first match counts.
_PATTERNS = (
    (StatementKind.RETURNED, "|".join(_RETURN)),
    (StatementKind.TRANSACTION_OPENED, rf"(?:BEGIN(?: WORK| TRANSACTION)?|START TRANSACTION|SET TRANSACTION){_MODES}"),
    (StatementKind.LISTENING, rf'LISTEN (?:[^\s".;]+|"[^"]+")|{_LEADERSHIP}'),
    (StatementKind.PROBED, r"SELECT \?(?: (?:AS )?[A-Z_]+)?"),
    (StatementKind.NEVER_USED, rf"SET {_SETTING}|SHOW [A-Z_. ]+|{_QUESTIONS}"),
)
_STATEMENT = re.compile("|".join(f"(?P<{kind.name}>{pattern})" for kind, pattern in _PATTERNS))
#: Drivers read these to learn the types of columns. Monitoring reads others.
_CATALOGUE = frozenset(
    {
        "pg_type",
        "pg_namespace",
        "pg_range",
        "pg_proc",
        "pg_attribute",
        "pg_class",
        "pg_enum",
        "pg_extension",
        "pg_collation",
    }
)


# At the beginning of a statement, or of one inside WITH. A row lock takes a transaction id, as a write does.
_WRITE = re.compile(
    r"(?:^|[;()]) ?"
    r"(?:(?:INSERT|MERGE) INTO|UPDATE|DELETE FROM|TRUNCATE|CREATE|ALTER|DROP|COPY [^;(]+(?:\([^()]*\) ?)?FROM) "
    r"|\bFOR (?:(?:NO KEY )?UPDATE|(?:KEY )?SHARE)\b",
    re.IGNORECASE,
)


def writes(redacted: str) -> bool:
    """Return whether a redacted text changes data or the schema, or locks rows."""
    return _WRITE.search(redacted) is not None


def kind_of(redacted: str) -> StatementKind:
    """Classify a redacted text. Of several statements the last one counts, unless any is the application's own."""
    if not redacted:
        return StatementKind.NEVER_USED
    kind = StatementKind.RETURNED  # a lone `;` is a pre-ping
    for part in redacted.upper().split(";"):
        statement = part.strip(" ")
        if statement:
            match = _STATEMENT.fullmatch(statement)
            if match is not None and match.lastgroup is not None:
                kind = StatementKind[match.lastgroup]
            elif _reads_types(statement):
                kind = StatementKind.NEVER_USED
            else:
                return StatementKind.APPLICATION
    return kind


def _reads_types(statement: str) -> bool:
    if not statement.startswith(("SELECT ", "WITH ")):
        return False
    tables = {table.lower() for table in tables_of(statement)}
    return bool(tables) and tables <= _CATALOGUE
