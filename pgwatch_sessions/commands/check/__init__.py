"""`pgwatch-sessions check`: polls a few times, judges, and reports as text or JSON."""

from pgwatch_sessions.commands.check.command import CHECK

__all__ = ["CHECK"]
