"""`pgwatch-sessions check`: poll a few times, judge, and say it as text or JSON."""

from pgwatch_sessions.commands.check.command import CHECK

__all__ = ["CHECK"]
