"""Tells SQL from other text. What is no SQL is not shown: it may be anything, a password pasted into psql too."""

import re

from pgwatch_sessions.core.statements.unquoted import STATEMENTS

#: Stands for a statement that is no SQL.
NO_SQL = "(no SQL)"

#: A statement's first word, behind the parentheses of `(SELECT …) UNION …` and the `<` of `<FASTPATH>`: a command of
#: PostgreSQL, of its replication protocol, of poolers, or of MySQL.
_BEGINS_WITH_COMMAND = re.compile(
    r"""
    [ ]*(?:[(<][ ]*)* (?:
      ABORT|ALTER|ANALY[SZ]E|BEGIN|CALL|CHECKPOINT|CLOSE|CLUSTER|COMMENT|COMMIT|COPY|CREATE|DEALLOCATE|DECLARE|DELETE
    | DISCARD|DO|DROP|END|EXECUTE|EXPLAIN|FASTPATH|FETCH|GRANT|IMPORT|INSERT|LISTEN|LOAD|LOCK|MERGE|MOVE|NOTIFY|PREPARE
    | REASSIGN|REFRESH|REINDEX|RELEASE|REPACK|RESET|RETURN|REVOKE|ROLLBACK|SAVEPOINT|SECURITY|SELECT|SET|SHOW|START
    | TABLE|TRUNCATE|UNLISTEN|UPDATE|VACUUM|VALUES|WAIT|WITH
    | (?:ALTER|CREATE|DROP|READ)_REPLICATION_SLOT|BASE_BACKUP|IDENTIFY_SYSTEM|START_REPLICATION|TIMELINE_HISTORY
    | DISABLE|ENABLE|KILL|KILL_CLIENT|PAUSE|PGPOOL|RECONNECT|RELOAD|RESUME|SHUTDOWN|SUSPEND|WAIT_CLOSE
    | DESC|DESCRIBE|EXEC|FLUSH|HANDLER|OPTIMIZE|PURGE|RENAME|REPAIR|REPLACE|UNLOCK|USE
    ) (?![\w$"])
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: Marks without any word, as in the redacted form of `'x'`.
_NOTHING = re.compile(r"[^\w\"]*")


def only_sql(redacted: str) -> str:
    """Return a redacted text with `(no SQL)` for each statement that does not begin with a known command."""
    return STATEMENTS.sub(_shown, redacted)


def _shown(statement: re.Match[str]) -> str:
    text = statement[0]
    if _BEGINS_WITH_COMMAND.match(text) or _NOTHING.fullmatch(text):
        return text
    return f" {NO_SQL}" if text.startswith(" ") else NO_SQL
