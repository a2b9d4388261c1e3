"""For applications: numbers of their connection pools, and the lines of code that borrow connections.

It is independent of the daemon, and imports only the standard library until something is instrumented.
"""

from pgwatch_sessions.pools.instrument import PoolHandle, handles, instrument, uninstrument
from pgwatch_sessions.pools.ledger import Borrowed
from pgwatch_sessions.pools.sites import Site
from pgwatch_sessions.pools.sizing import PoolSize, size_for
from pgwatch_sessions.pools.snapshot import PoolSnapshot

__all__ = [
    "Borrowed",
    "PoolHandle",
    "PoolSize",
    "PoolSnapshot",
    "Site",
    "handles",
    "instrument",
    "size_for",
    "uninstrument",
]
