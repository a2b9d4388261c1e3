"""`pgwatch-sessions config`: check the settings, show where they come from, and try the connections."""

from pgwatch_sessions.commands.config.command import CONFIG

__all__ = ["CONFIG"]
