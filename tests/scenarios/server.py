"""The simulated PostgreSQL: slots and limits, pids, locks, counters, its clock, and the snapshots of polls."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pgwatch_sessions.core.model import (
    ConnectionLimit,
    DatabaseCounters,
    Failure,
    FailureReason,
    LimitScope,
    ServerInfo,
    Session,
    Snapshot,
)
from tests.scenarios.backends import Backend, ConnectionLost, Origin, sits_idle
from tests.scenarios.engine import Process, Simulation
from tests.scenarios.locks import Lock

#: The server's clock at the beginning of each story.
EPOCH = 1_800_000_000.0
OWN_USER, OWN_DATABASE = "pgwatch_sessions", "postgres"
#: Maximum of waiting sessions for which a poll calls pg_blocking_pids.
_MAX_BLOCKING_QUERIES = 50
_PORTS = 28_000


class ConnectionRefused(Exception):  # noqa: N818  what happened
    """SQLSTATE 53300: no slot is left in this scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """The settings of the server."""

    max_connections: int = 100
    superuser_reserved_connections: int = 3
    role_limits: tuple[tuple[str, int], ...] = ()
    database_limits: tuple[tuple[str, int], ...] = ()
    idle_in_transaction_session_timeout: float | None = None
    #: Number of pids; then they are reused.
    pids: int = 30_000
    #: Transactions per second of others, which increase the age of every xid.
    transactions_per_second: float = 50.0
    #: Users whose sessions the monitoring role may not see; "*" for all.
    hidden_users: frozenset[str] = frozenset()


class RunningPostgres:
    """A running server with its sessions."""

    def __init__(self, simulation: Simulation, setup: Postgres) -> None:
        self.simulation = simulation
        self.setup = setup
        self.backends: dict[int, Backend] = {}
        self.transactions = 0
        self.exhausted_at: dict[tuple[LimitScope, str], float] = {}
        self._clock_stepped = 0.0
        self._locks: dict[str, Lock] = {}
        self._counters: dict[str, Counter[str]] = {}
        self._last_pid = 1000
        self._up = True
        self._describe()

    def clock(self) -> float:
        """Return the server's time."""
        return EPOCH + self.simulation.now + self._clock_stepped

    def step_clock(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self._clock_stepped += seconds

    def connect(self, origin: Origin) -> Backend:
        """Give the client a session, or raise ConnectionRefused."""
        if not self._up:
            raise ConnectionRefused(LimitScope.SERVER)
        full = next((key for key, used, slots in self._limits(origin) if used >= slots), None)
        if full:
            raise ConnectionRefused(full[0])
        backend = Backend(self._new_pid(), origin, 32_768 + self.simulation.random.randrange(_PORTS), self.clock)
        backend.ends = self._give_up_locks
        if self.setup.idle_in_transaction_session_timeout is not None:
            backend.sits = self._end_if_it_stays
        self.backends[backend.pid] = backend
        self._count(origin.database, "established")
        for key, used, slots in self._limits(origin):
            if used >= slots:
                self.exhausted_at.setdefault(key, self.simulation.now)
        return backend

    def close(self, backend: Backend, *, counted_as: str | None = None) -> None:
        """End a session. `counted_as` is `abandoned`, `fatal` or `killed`, unless the client disconnected in order."""
        if not backend.alive:
            return
        backend.alive = False
        del self.backends[backend.pid]
        if backend.waits_for:
            backend.waits_for.leave(self.simulation, backend)
        self._give_up_locks(backend)
        if counted_as:
            self._count(backend.origin.database, counted_as)

    def run(
        self,
        backend: Backend,
        sql: str,
        seconds: float,
        *,
        writes: bool = False,
        lock: str | None = None,
        shared: bool = False,
        gives_up: float | None = None,
        fails: bool = False,
    ) -> Process[bool]:
        """Run a statement after it got its lock, if it needs one. Return whether it succeeded."""
        self.transactions += writes
        backend.start(sql, transactions=self.transactions_now(), writes=writes)
        if lock:
            wanted = self._locks.setdefault(lock, Lock(lock))
            got = yield from wanted.take(self.simulation, backend, shared=shared, at_most=gives_up)
            if not backend.alive:
                raise ConnectionLost
            if not got:
                backend.fail()
                return False
        yield seconds
        if fails:
            backend.fail()
        else:
            backend.finish()
        return not fails

    def transactions_now(self) -> int:
        """Return the count of transactions, from which the ages of xids are measured."""
        return self.transactions + int(self.simulation.now * self.setup.transactions_per_second)

    def restart(self, *, seconds: float) -> None:
        """Stop with all sessions, and start again."""
        for backend in tuple(self.backends.values()):
            self.close(backend)
        self._up = False
        self.simulation.at(self.simulation.now + seconds, self._come_up)

    def poll(self) -> Snapshot | Failure:
        """Return the snapshot or failure of a poll at this moment."""
        if not self._up:
            return Failure(reason=FailureReason.NETWORK, detail="connecting: refused")
        return Snapshot(
            taken_at=self.clock(),
            server=self._server,
            sessions=tuple(self._sessions()),
            own_user=OWN_USER,
            own_database=OWN_DATABASE,
            databases=tuple(self._database_counters()),
        )

    def _sessions(self) -> Iterator[Session]:
        hidden, now = self.setup.hidden_users, self.transactions_now()
        waiting = [backend for backend in self.backends.values() if backend.waits_for]
        waiting.sort(key=lambda backend: backend.state_change)
        queried = {backend.pid for backend in waiting[:_MAX_BLOCKING_QUERIES]}
        for backend in self.backends.values():
            is_hidden = bool(hidden) and ("*" in hidden or backend.origin.user in hidden)
            session = backend.session(transactions=now, hidden=is_hidden)
            if backend.waits_for and not is_hidden:
                blocked_by = tuple(backend.waits_for.blockers(backend)) if backend.pid in queried else ()
                event = backend.waits_for.event(backend)
                session = replace(session, wait_event_type="Lock", wait_event=event, blocked_by=blocked_by)
            yield session

    def _database_counters(self) -> Iterator[DatabaseCounters]:
        for database, counts in sorted(self._counters.items()):
            yield DatabaseCounters(
                database=database,
                established=counts["established"],
                abandoned=counts["abandoned"],
                fatal=counts["fatal"],
                killed=counts["killed"],
                session_seconds=0.0,
                active_seconds=0.0,
                idle_in_transaction_seconds=0.0,
            )

    def _limits(self, origin: Origin) -> Iterator[tuple[tuple[LimitScope, str], int, int]]:
        setup = self.setup
        # One slot is used by the monitor.
        ordinary = setup.max_connections - setup.superuser_reserved_connections
        yield (LimitScope.SERVER, "db"), len(self.backends) + 1, ordinary
        sessions = self.backends.values()
        for name, slots in setup.role_limits:
            if name == origin.user:
                yield (LimitScope.ROLE, name), sum(b.origin.user == name for b in sessions), slots
        for name, slots in setup.database_limits:
            if name == origin.database:
                yield (LimitScope.DATABASE, name), sum(b.origin.database == name for b in sessions), slots

    def _new_pid(self) -> int:
        while True:
            self._last_pid += self.simulation.random.randint(1, 5)
            if self._last_pid >= 1000 + self.setup.pids:
                self._last_pid -= self.setup.pids
            if self._last_pid not in self.backends:
                return self._last_pid

    def _count(self, database: str, counter: str) -> None:
        self._counters.setdefault(database, Counter())[counter] += 1

    def _give_up_locks(self, backend: Backend) -> None:
        locks, backend.locks = backend.locks, []
        for lock in locks:
            lock.leave(self.simulation, backend)

    def _end_if_it_stays(self, backend: Backend) -> None:
        timeout = self.setup.idle_in_transaction_session_timeout
        since = backend.state_change

        def check() -> None:
            if backend.alive and sits_idle(backend) and backend.state_change == since:
                self.close(backend, counted_as="fatal")

        self.simulation.at(self.simulation.now + (timeout or 0.0), check)

    def _come_up(self) -> None:
        self._up = True
        self._describe()

    def _describe(self) -> None:
        setup = self.setup
        self._server = ServerInfo(
            version_num=180004,
            in_recovery=False,
            started_at=self.clock() - (0.0 if self.simulation.now else 1e6),
            max_connections=setup.max_connections,
            superuser_reserved_connections=setup.superuser_reserved_connections,
            role_limits=tuple(ConnectionLimit(name, slots) for name, slots in setup.role_limits),
            database_limits=tuple(ConnectionLimit(name, slots) for name, slots in setup.database_limits),
        )
