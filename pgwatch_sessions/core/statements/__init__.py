"""What a session's last statement tells, without its literals: text, fingerprint, kind, comment tags, site."""

from pgwatch_sessions.core.statements.comment_tags import Tags, tags
from pgwatch_sessions.core.statements.fingerprints import fingerprint
from pgwatch_sessions.core.statements.kinds import Kind
from pgwatch_sessions.core.statements.redaction import redact
from pgwatch_sessions.core.statements.statement import UNKNOWN, Statement, parse_statement

__all__ = ["UNKNOWN", "Kind", "Statement", "Tags", "fingerprint", "parse_statement", "redact", "tags"]
