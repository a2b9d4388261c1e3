"""The state of a story while it is played: the server, its clients' pools, and the leaked sessions."""

from typing import NamedTuple

from pgwatch_sessions.core.model import Client, SessionId
from tests.scenarios.backends import Backend
from tests.scenarios.engine import Simulation
from tests.scenarios.pools import RunningPool
from tests.scenarios.server import Postgres, RunningPostgres


class Leaked(NamedTuple):
    """A record of one leaked session, or of one hold that was too long."""

    at: float
    id: SessionId
    client: Client
    site: str
    #: When the hold ends by itself. Infinite for a leaked session.
    until: float = float("inf")


class World:
    """The simulated world. Times are seconds of the story."""

    def __init__(self, seed: int, setup: Postgres) -> None:
        self.simulation = Simulation(seed)
        self.server = RunningPostgres(self.simulation, setup)
        self.pools: list[RunningPool] = []
        self.ledger: list[Leaked] = []

    def leaked(self, backend: Backend, client: Client, site: str, *, seconds: float = float("inf")) -> None:
        """Record that this session will not be used again for so many seconds, or never."""
        now = self.simulation.now
        self.ledger.append(Leaked(now, backend.id, client, site, now + seconds))

    def leaking(self) -> frozenset[Client]:
        """Return the clients with a leaked session that still exists."""
        backends, now = self.server.backends, self.simulation.now
        return frozenset(
            entry.client
            for entry in self.ledger
            if now < entry.until and entry.id.pid in backends and backends[entry.id.pid].id == entry.id
        )

    def queueing(self) -> frozenset[Client]:
        """Return the clients whose requests wait for a connection of their own pool."""
        return frozenset(pool.client for pool in self.pools if pool.queue)
