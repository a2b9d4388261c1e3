"""What the server says about the sessions of the tests."""

from dataclasses import dataclass


class ServerUnseenError(Exception):
    """The server cannot be asked; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTransaction:
    """A session of this process that is idle in transaction."""

    pid: int
    #: Tells it from an earlier session with the same pid. Seconds since the epoch, by the server's clock.
    backend_start: float | None
    #: What it did last: a route from the statement's tags, else the verb and tables.
    site: str

    def __str__(self) -> str:
        return f"session {self.pid}, idle in transaction on the server, last at {self.site}"
