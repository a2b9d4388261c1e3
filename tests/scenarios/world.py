"""The state of a story while it is played: the server, its clients' pools, and the leaked sessions."""

from typing import NamedTuple

from pgwatch_sessions.core.model import Client, SessionId
from tests.scenarios.backends import Backend
from tests.scenarios.engine import Simulation
from tests.scenarios.pools import RunningPool
from tests.scenarios.server import Postgres, RunningPostgres


class Leaked(NamedTuple):
    """A record of one leaked session."""

    at: float
    id: SessionId
    client: Client
    site: str


class World:
    """The simulated world. Times are seconds of the story."""

    def __init__(self, seed: int, setup: Postgres) -> None:
        self.simulation = Simulation(seed)
        self.server = RunningPostgres(self.simulation, setup)
        self.pools: list[RunningPool] = []
        self.ledger: list[Leaked] = []

    def leaked(self, backend: Backend, client: Client, site: str) -> None:
        """Record that this session will never be used again."""
        self.ledger.append(Leaked(self.simulation.now, backend.id, client, site))

    def leaking(self) -> frozenset[Client]:
        """Return the clients with a leaked session that still exists."""
        backends = self.server.backends
        return frozenset(
            entry.client for entry in self.ledger if entry.id.pid in backends and backends[entry.id.pid].id == entry.id
        )
