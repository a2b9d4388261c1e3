"""`pgwatch-sessions replay`: steps, then the story or JSON of them, then what it came to."""

from pgwatch_sessions.commands.replay.command import REPLAY

__all__ = ["REPLAY"]
