"""Connection pools of libraries: when they open, hand out, reset, keep and close connections."""

from collections import deque
from dataclasses import dataclass

from pgwatch_sessions.core.client_names import client_of
from pgwatch_sessions.core.model import Client
from tests.scenarios.backends import Backend, Origin
from tests.scenarios.chance import Duration, about
from tests.scenarios.engine import Process, Simulation, Wait
from tests.scenarios.server import ConnectionRefused, RunningPostgres

ASYNCPG_RESET = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;"
_OPEN_ONE = object()


class PoolTimedOut(Exception):  # noqa: N818  what happened
    """No connection was returned within the time-out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The behaviour of a library's pool. Times are seconds."""

    #: Maximum of idle connections, and of all connections.
    size: int
    most: int
    #: Hand out the connection that was returned last, or any of the idle ones; otherwise the one returned first.
    last_in_first_out: bool = False
    picks_any: bool = False
    #: Connections opened at the start, and the minimum after that.
    least: int = 0
    #: Statement sent whenever a connection is returned.
    reset: str | None = None
    #: Statements that are sent when a connection is opened, before it is used for the first time.
    setup: tuple[str, ...] = ()
    #: Requests run in a transaction, which COMMIT or ROLLBACK ends.
    transactions: bool = True
    #: asyncpg ends BEGIN, COMMIT and ROLLBACK with a semicolon.
    semicolon: bool = False
    #: The extended protocol, which asyncpg always uses.
    keeps_snapshot: bool = True
    timeout: float = 30.0
    idle_timeout: float | None = None
    lifetime: float | None = None
    connecting: Duration = about(0.02)
    #: The time until a waiting request uses a connection that was returned. None if it takes none.
    handing_over: Duration | None = None

    def word(self, command: str) -> str:
        """Return BEGIN, COMMIT or ROLLBACK as the driver sends it."""
        return command + ";" * self.semicolon


def sqlalchemy(size: int = 5, overflow: int = 10, *, driver: str = "psycopg", timeout: float = 30.0) -> Pool:
    """QueuePool: first in, first out; never closes an idle connection of `size`, always one of `overflow`."""
    is_asyncpg = driver == "asyncpg"
    most = size + overflow
    return Pool(size=size, most=most, semicolon=is_asyncpg, keeps_snapshot=is_asyncpg, timeout=timeout)


def asyncpg_pool(least: int = 10, most: int = 20, *, transactions: bool = False, idle: float | None = None) -> Pool:
    """asyncpg.Pool: opens `least` at the start, last in first out, always resets; before 0.32 with idle=300."""
    return Pool(
        size=most, most=most, least=least, last_in_first_out=True, reset=ASYNCPG_RESET, transactions=transactions,
        semicolon=True, idle_timeout=idle,
    )  # fmt: skip


def psycopg_pool(least: int = 4, most: int = 10) -> Pool:
    """psycopg_pool: transactions; closes idle connections above `least` after 600 s, and all within an hour."""
    return Pool(
        size=most, most=most, least=least, last_in_first_out=True, keeps_snapshot=False, idle_timeout=600,
        lifetime=3600,
    )  # fmt: skip


def autocommit(size: int = 5, overflow: int = 10) -> Pool:
    """QueuePool with AUTOCOMMIT: no reset, so the application's statement remains the last one."""
    return Pool(size=size, most=size + overflow, transactions=False, keeps_snapshot=False)


def pgx(most: int = 10, *, lifetime: float = 3600.0, idle: float = 1800.0) -> Pool:
    """pgxpool: no reset, last in first out, recycled hourly; closes idle connections after half an hour."""
    return Pool(
        size=most, most=most, last_in_first_out=True, transactions=False, lifetime=lifetime, idle_timeout=idle
    )  # fmt: skip


def node_postgres(most: int = 10) -> Pool:
    """node-postgres: no reset; closes idle connections after ten seconds."""
    return Pool(size=most, most=most, last_in_first_out=True, transactions=False, keeps_snapshot=False, idle_timeout=10)


def database_sql(most: int = 10, *, idle: int = 2, lifetime: float | None = None) -> Pool:
    """database/sql of Go: no reset, last in first out, keeps only so many idle connections."""
    return Pool(size=idle, most=most, last_in_first_out=True, transactions=False, lifetime=lifetime)


def hikari(most: int = 10, *, least: int | None = None) -> Pool:
    """HikariCP with autocommit: no reset, any idle connection; of full size from the start, renewed after 30 min."""
    return Pool(
        size=most, most=most, least=most if least is None else least, picks_any=True, transactions=False,
        lifetime=1800, idle_timeout=600, setup=("SET application_name = 'orders'",),
    )  # fmt: skip


def django(threads: int = 8, *, max_age: float | None = None) -> Pool:
    """Django's persistent connections: one per thread, AUTOCOMMIT, no reset."""
    return Pool(size=threads, most=threads, transactions=False, keeps_snapshot=False, lifetime=max_age)


def per_request(*, transactions: bool = True, driver: str = "psycopg") -> Pool:
    """No pool: connect, work, disconnect."""
    is_asyncpg = driver == "asyncpg"
    return Pool(
        size=0, most=10_000, transactions=transactions, semicolon=is_asyncpg, keeps_snapshot=is_asyncpg
    )  # fmt: skip


def pgbouncer(server_connections: int = 20) -> Pool:
    """Transaction pooling: last in first out, no reset; closes idle connections after 10 min, all within an hour."""
    return Pool(
        size=server_connections, most=server_connections, last_in_first_out=True, timeout=120, idle_timeout=600,
        lifetime=3600,
    )  # fmt: skip


class RunningPool:
    """One pool in one process."""

    def __init__(self, simulation: Simulation, server: RunningPostgres, pool: Pool, origin: Origin) -> None:
        self.pool = pool
        self.origin = origin
        self.closed = False
        self.timed_out = 0
        self.refused = 0
        #: Connections that count against `most`: idle, checked out, or being opened.
        self.opened = 0
        self._simulation = simulation
        self._server = server
        self._out: set[Backend] = set()
        self._idle: deque[tuple[Backend, float]] = deque()
        self._waiting: deque[Wait] = deque()
        for _ in range(pool.least):
            simulation.start(self._open_idle())
        if pool.idle_timeout is not None or pool.lifetime is not None:
            simulation.start(self._sweep())

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return len(self._idle)

    @property
    def queue(self) -> int:
        """The number of requests that wait for a connection."""
        return sum(wait.process is not None for wait in self._waiting)

    @property
    def client(self) -> Client:
        """Whose pool it is."""
        return client_of(*self.origin[:3], None)

    def acquire(self) -> Process[Backend]:
        """Take a connection. Raises PoolTimedOut, or ConnectionRefused by the server."""
        while True:
            while self._idle:
                backend = self._take_idle()
                if backend.alive:  # a pre-ping would notice
                    self._out.add(backend)
                    return backend
                self.opened -= 1
            if self.opened < self.pool.most:
                backend = yield from self._open()
                self._out.add(backend)
                return backend
            wait = Wait()
            self._waiting.append(wait)
            given = yield from self._simulation.wait(wait, at_most=self.pool.timeout)
            if given is None:
                self.timed_out += 1
                raise PoolTimedOut
            if isinstance(given, Backend):
                if self.pool.handing_over is not None:
                    yield self.pool.handing_over(self._simulation.random)
                return given

    def release(self, backend: Backend) -> None:
        """Return a connection to the pool: reset it, then pass it to the longest waiting request, keep or close it."""
        if not backend.alive or self.closed:
            self.discard(backend)
            return
        if backend.in_transaction:
            backend.end(self.pool.word("ROLLBACK"))
        if self.pool.reset is not None:
            backend.end(self.pool.reset)
        lifetime = self.pool.lifetime
        if lifetime is not None and self._age(backend) > lifetime:
            self.discard(backend)
            return
        while self._waiting:
            if self._simulation.wake(self._waiting.popleft(), backend):
                return
        self._out.discard(backend)
        if len(self._idle) >= self.pool.size:
            self.discard(backend)
        else:
            self._idle.append((backend, self._simulation.now))

    def discard(self, backend: Backend) -> None:
        """Close a connection, and give its slot in the pool to a waiting request."""
        self._out.discard(backend)
        self._server.close(backend)
        self.forget()

    def forget(self) -> None:
        """Count one connection less, because it is closed or the pool believes so."""
        self.opened -= 1
        while self._waiting:
            if self._simulation.wake(self._waiting.popleft(), _OPEN_ONE):
                return

    def close(self, *, gone: bool = False) -> None:
        """End the process with all its connections. If `gone`, the server does not notice."""
        self.closed = True
        for backend in () if gone else (*self._out, *(backend for backend, _ in self._idle)):
            self._server.close(backend)
        self._idle.clear()
        self._out.clear()

    def _take_idle(self) -> Backend:
        if self.pool.picks_any:
            self._idle.rotate(-self._simulation.random.randrange(len(self._idle)))
        backend, _ = self._idle.pop() if self.pool.last_in_first_out else self._idle.popleft()
        return backend

    def _age(self, backend: Backend) -> float:
        return self._server.clock() - backend.born

    def _open(self) -> Process[Backend]:
        self.opened += 1
        yield self.pool.connecting(self._simulation.random)
        try:
            backend = self._server.connect(self.origin)
        except ConnectionRefused:
            self.opened -= 1
            self.refused += 1
            raise
        if self.closed:
            self._server.close(backend)
            raise PoolTimedOut
        backend.keeps_snapshot = self.pool.keeps_snapshot
        for sql in self.pool.setup:
            backend.end(sql)
        return backend

    def _open_idle(self) -> Process[None]:
        try:
            backend = yield from self._open()
        except (ConnectionRefused, PoolTimedOut):
            return
        self._idle.append((backend, self._simulation.now))

    def _sweep(self) -> Process[None]:
        pool, random = self.pool, self._simulation.random
        while not self.closed:
            yield min(pool.idle_timeout or 60.0, 60.0) / 4
            now = self._simulation.now
            for backend, since in tuple(self._idle):
                # Spread in time, as libraries do, so that connections opened together do not close together.
                over_age = pool.lifetime and self._age(backend) > pool.lifetime * random.uniform(0.9, 1.0)
                unused = pool.idle_timeout and now - since > pool.idle_timeout and self.opened > pool.least
                if over_age or unused:
                    self._idle.remove((backend, since))
                    self.discard(backend)
                    if over_age and self.opened < pool.least:
                        self._simulation.start(self._open_idle())
