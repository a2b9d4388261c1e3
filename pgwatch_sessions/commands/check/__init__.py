"""`check` and `terminate-sql`: poll a few times and judge; report as text or JSON, or print SQL."""

from pgwatch_sessions.commands.check.command import CHECK
from pgwatch_sessions.commands.check.terminate_sql import TERMINATE_SQL

__all__ = ["CHECK", "TERMINATE_SQL"]
