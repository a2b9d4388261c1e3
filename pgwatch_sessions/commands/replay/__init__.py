"""`pgwatch-sessions replay`: judges a recording, and reports as text or JSON."""

from pgwatch_sessions.commands.replay.command import REPLAY

__all__ = ["REPLAY"]
