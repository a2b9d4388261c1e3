"""What instrumenting a pool of any library takes and returns."""

from collections.abc import Callable
from dataclasses import dataclass

from pgwatch_sessions.pools.ledger import Capture, Entry, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to watch a pool."""

    #: Returns the pool's name, given the one it would have without configuration.
    name: Callable[[str], str]
    capture: Capture
    #: Called with each entry that ends, and with whether the garbage collector returned it.
    on_return: Callable[[Entry, bool], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A ledger that is kept for a pool."""

    ledger: Ledger
    #: Tells whether this object is, or has, the pool. It keeps neither alive.
    covers: Callable[[object], bool]
    #: Tells whether the pool still exists and can be used.
    exists: Callable[[], bool]
    #: Leaves the pool as it was.
    undo: Callable[[], None]
