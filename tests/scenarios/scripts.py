"""Clients other than services: consoles, listeners, dumps, batches, cron jobs, migrations. Each is a list of steps."""

from collections.abc import Iterator
from dataclasses import dataclass

from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.statements import parse_statement
from tests.scenarios.backends import Backend, ConnectionLost, Origin
from tests.scenarios.chance import Duration, about, between, exactly
from tests.scenarios.engine import Process
from tests.scenarios.server import ConnectionRefused
from tests.scenarios.world import World

_HALF_A_SECOND = about(0.5)
_A_WHILE = between(0.2, 5.0)


@dataclass(frozen=True, slots=True)
class Begin:
    """Open a transaction."""

    text: str = "BEGIN"


@dataclass(frozen=True, slots=True)
class Run:
    """Run a statement. It waits for `locks`, and rolls back the transaction after `gives_up` seconds."""

    sql: str
    takes: Duration = about(0.01)
    writes: bool = False
    locks: str | None = None
    shared: bool = False
    gives_up: float | None = None


@dataclass(frozen=True, slots=True)
class Think:
    """Work outside the database. `too_long` records it as a hold that somebody wants to know of."""

    seconds: Duration
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """End the transaction."""

    text: str = "COMMIT"


@dataclass(frozen=True, slots=True)
class Repeat:
    """Repeat steps several times."""

    times: int
    steps: tuple["Step", ...]


#: A single step; a Repeat contains several.
Doing = Begin | Run | Think | End
Step = Doing | Repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A client that connects, runs its steps, and disconnects or stays. Times are seconds of the story."""

    application: str
    steps: tuple[Step, ...]
    user: str = "app"
    database: str = "shop"
    address: str | None = "10.0.1.5"
    starts: float = 0.0
    #: Seconds between two starts.
    every: float | None = None
    #: Number of such clients.
    copies: int = 1
    #: Never closes its connection after the last step: on purpose (stays), or because of a bug (leaks).
    stays: bool = False
    leaks: bool = False
    #: Its last write, if the server shows it long enough to be seen: findings name it instead of the last statement.
    last_write: str | None = None
    #: Seconds until it reconnects after the server ended its session.
    reconnects: float | None = 5.0

    @property
    def client(self) -> Client:
        """The client in findings."""
        return Client(self.database, self.user, self.application or "(none)")

    @property
    def site(self) -> str:
        """The expected site of a finding."""
        last = [step.sql for step in _flat(self.steps) if isinstance(step, Run)][-1]
        return parse_statement(self.last_write or last).site

    def play(self, world: World) -> None:
        """Start the client."""
        for _ in range(self.copies):
            world.simulation.start_at(self.starts, self._again_and_again(world))

    def _again_and_again(self, world: World) -> Process[None]:
        while True:
            started = world.simulation.now
            try:
                backend = world.server.connect(Origin(self.database, self.user, self.application, self.address))
                yield from self._go_through(world, backend)
            except (ConnectionLost, ConnectionRefused):
                if self.reconnects is None:
                    return
                yield self.reconnects
                continue
            if self.every is None:
                return
            yield max(0.0, self.every - (world.simulation.now - started))

    def _go_through(self, world: World, backend: Backend) -> Process[None]:
        for step in _flat(self.steps):
            if isinstance(step, Think):
                yield self._think(step, world, backend)
            else:
                yield from _do(step, world, backend)
        if self.leaks:
            world.leaked(backend, self.client, self.site)
        if not self.stays and not self.leaks:
            world.server.close(backend)
        while backend.alive and self.stays:
            yield 1.0
        if self.stays and not backend.alive:
            raise ConnectionLost

    def _think(self, step: Think, world: World, backend: Backend) -> float:
        seconds = step.seconds(world.simulation.random)
        if step.too_long:
            world.leaked(backend, self.client, self.site, seconds=seconds)
        return seconds


def _do(step: Run | Begin | End, world: World, backend: Backend) -> Process[None]:
    random = world.simulation.random
    match step:
        case Run():
            yield from world.server.run(
                backend,
                step.sql,
                step.takes(random),
                writes=step.writes,
                lock=step.locks,
                shared=step.shared,
                gives_up=step.gives_up,
            )
        case Begin():
            backend.begin(step.text)
        case End():
            backend.end(step.text)


def _flat(steps: tuple[Step, ...]) -> Iterator[Doing]:
    for step in steps:
        if isinstance(step, Repeat):
            for _ in range(step.times):
                yield from _flat(step.steps)
        else:
            yield step


def listener(application: str = "notifier") -> Script:
    """Return a client that keeps waiting for notifications."""
    return Script(application=application, steps=(Run("LISTEN order_created"),), stays=True)


def leader(application: str = "scheduler") -> Script:
    """Return a leader, which keeps an advisory lock."""
    return Script(application=application, steps=(Run("SELECT pg_try_advisory_lock(4711)"),), stays=True)


def console(*, starts: float = 60.0, in_transaction: bool = False) -> Script:
    """Return somebody's psql that was left open."""
    steps: tuple[Step, ...] = (Run("SELECT * FROM orders LIMIT 10;", about(0.05)),)
    if in_transaction:
        steps = (Begin("BEGIN;"), *steps)
    return Script(application="psql", user="anna", address=None, steps=steps, starts=starts, stays=True)


def dump(*, starts: float = 120.0, minutes: float = 15.0, jobs: int = 1) -> tuple[Script, ...]:
    """Run pg_dump in one long transaction. With several jobs, the leader is idle in transaction all the time."""
    copying = Run(
        "COPY public.orders (id, customer, status) TO stdout;", exactly(minutes * 60), shared=True, locks="orders"
    )
    begin = Begin("BEGIN")
    isolate = Run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    if jobs == 1:
        return (Script(application="pg_dump", user="backup", steps=(begin, isolate, copying), starts=starts),)
    export = Run("SELECT pg_catalog.pg_export_snapshot()")
    waits = Think(exactly(minutes * 60 + 5))
    return (
        Script(application="pg_dump", user="backup", steps=(begin, isolate, export, waits), starts=starts),
        Script(application="pg_dump", user="backup", steps=(begin, isolate, copying), starts=starts + 1, copies=jobs),
    )


def batch(
    *, starts: float = 120.0, rounds: int = 60, works: Duration = _HALF_A_SECOND, thinks: Duration = _A_WHILE,
    copies: int = 1, application: str = "nightly-batch", every: float | None = None,
) -> Script:  # fmt: skip
    """Run one long transaction of many statements, with client work between them."""
    work = Run("UPDATE invoices SET total = $1 WHERE id = $2", works, writes=True)
    steps = (Begin(), Repeat(rounds, (work, Think(thinks))), End())
    return Script(application=application, steps=steps, starts=starts, copies=copies, every=every)


def cron(*, every: float = 60.0, works: float = 3.0) -> Script:
    """Connect regularly, run one short transaction, and disconnect."""
    select = Run("SELECT id FROM invoices WHERE due < $1", about(0.2))
    update = Run("UPDATE invoices SET reminded = now() WHERE id = $1", about(0.2), writes=True)
    steps = (Begin(), select, Think(about(works)), update, End())
    return Script(application="reminders", steps=steps, every=every)


def migration(*, starts: float, waits_at_most: float | None = None, takes: float = 2.0) -> Script:
    """Run ALTER TABLE, which waits for readers of orders. All later sessions wait behind it."""
    alter = Run(
        "ALTER TABLE orders ADD COLUMN note text", exactly(takes), writes=True, locks="orders", gives_up=waits_at_most
    )
    return Script(application="alembic", user="owner", steps=(Begin(), alter, End()), starts=starts)


def report(*, starts: float, seconds: float, application: str = "reports", locks: str | None = None) -> Script:
    """Run one long query."""
    query = Run("SELECT region, sum(total) FROM orders GROUP BY region", exactly(seconds), locks=locks, shared=True)
    return Script(application=application, steps=(query,), starts=starts)


def row_holder(*, starts: float, seconds: float, row: str = "orders:1", application: str = "backoffice") -> Script:
    """Lock a row, and hold the lock during an external call, which ends eventually."""
    update = Run("UPDATE orders SET status = $1 WHERE id = $2", writes=True, locks=row)
    return Script(application=application, steps=(Begin(), update, Think(exactly(seconds)), End()), starts=starts)
