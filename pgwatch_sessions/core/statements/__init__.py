"""What a session's last statement tells without its literals: redacted text, kind, comment tags, site."""

from pgwatch_sessions.core.statements.code_lines import CodeLine
from pgwatch_sessions.core.statements.kinds import StatementKind
from pgwatch_sessions.core.statements.statement import UNKNOWN_STATEMENT, Statement, parse_statement
from pgwatch_sessions.core.statements.tags import Tags

__all__ = ["UNKNOWN_STATEMENT", "CodeLine", "Statement", "StatementKind", "Tags", "parse_statement"]
