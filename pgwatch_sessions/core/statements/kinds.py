"""Classifies a session's last statement by its text alone."""

import re
from enum import StrEnum


class StatementKind(StrEnum):
    """The class of a last statement. What it means depends on the session's state."""

    #: No statement yet, or only the settings that drivers send when they connect.
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

# Each matches one whole statement in upper case, without its literals. The first match counts.
_PATTERNS = (
    (StatementKind.RETURNED, "|".join(_RETURN)),
    (StatementKind.TRANSACTION_OPENED, rf"(?:BEGIN(?: WORK| TRANSACTION)?|START TRANSACTION|SET TRANSACTION){_MODES}"),
    (StatementKind.LISTENING, rf'LISTEN (?:[^\s".;]+|"[^"]+")|{_LEADERSHIP}'),
    (StatementKind.PROBED, r"SELECT \?(?: (?:AS )?[A-Z_]+)?"),
    (StatementKind.NEVER_USED, rf"SET {_SETTING}|SHOW [A-Z_ ]+"),
)
_STATEMENT = re.compile("|".join(f"(?P<{kind.name}>{pattern})" for kind, pattern in _PATTERNS))


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
            if match is None or match.lastgroup is None:
                return StatementKind.APPLICATION
            kind = StatementKind[match.lastgroup]
    return kind
