"""Applications that serve requests: instances with several processes, each with its own pool, and deploys."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count

from pgwatch_sessions.core.model import Client
from tests.scenarios.backends import Backend, ConnectionLost, Origin
from tests.scenarios.chance import Rate, steady
from tests.scenarios.engine import Process
from tests.scenarios.pools import Pool, PoolTimedOut, RunningPool, sqlalchemy
from tests.scenarios.requests import LIST_ORDERS, PAY_ORDER, READ_ORDER, Keeps, Leak, Request
from tests.scenarios.server import ConnectionRefused
from tests.scenarios.world import World

_IN_TRANSACTION = frozenset({Keeps.TRANSACTION, Keeps.ABORTED, Keeps.BEGUN, Keeps.THREAD})
_DRAIN = 10.0
_ROLL = 15.0
#: Seconds between two checks for a changed rate, if requests are rarer.
_NOTICE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One application. Times are seconds of the story."""

    application: str = "orders"
    user: str = "app"
    database: str = "shop"
    pool: Pool = sqlalchemy()
    traffic: Rate = steady(4.0)
    requests: tuple[Request, ...] = (LIST_ORDERS, READ_ORDER, PAY_ORDER)
    #: (time, number of instances). Each instance has its own address.
    instances: tuple[tuple[float, int], ...] = ((0, 2),)
    #: Processes per instance, each with its own pool.
    workers: int = 1
    #: Some processes of an instance get most of its requests, as when the kernel wakes the one that slept last.
    lopsided: bool = False
    #: Times at which all instances are replaced, one after the other.
    deploys: tuple[float, ...] = ()
    #: Time at which all processes vanish with their hosts, without closing connections.
    vanishes: float | None = None
    #: PgBouncer's address. All instances then share the pooler's connections.
    pooler: str | None = None
    #: Whether PgBouncer has application_name_add_host on.
    adds_host: bool = False
    #: Each process has another application name.
    suffixed: bool = False
    network: str = "10.0.0"

    @property
    def client(self) -> Client:
        """The client in findings."""
        return Client(self.database, self.user, self.application or "(none)")

    def play(self, world: World) -> None:
        """Start the application."""
        running = _Running(world, self)
        for time, number in self.instances:
            world.simulation.at(time, partial(running.scale, number))
        for time in self.deploys:
            world.simulation.start_at(time, running.deploy())
        if self.vanishes is not None:
            world.simulation.at(self.vanishes, lambda: running.stop_all(gone=True))
        world.simulation.start(running.traffic())
        for request in self.requests:
            if request.per_minute is not None:
                world.simulation.start(running.own_traffic(request, request.per_minute))


class _Instance:
    """One host or container: the pools of its processes."""

    def __init__(self, pools: list[RunningPool]) -> None:
        self.pools = pools


class _Running:
    """A running service."""

    def __init__(self, world: World, service: Service) -> None:
        self.world = world
        self.service = service
        self.instances: list[_Instance] = []
        self._addresses = count(11)
        self._ordinary = [request for request in service.requests if request.per_minute is None]
        self._shares = tuple(accumulate(request.share for request in self._ordinary))
        self._pooled: RunningPool | None = None

    def scale(self, number: int) -> None:
        """Start or stop instances to reach this number."""
        while len(self.instances) < number:
            self.instances.append(self._new_instance())
        for instance in self.instances[number:]:
            self.world.simulation.start(self._drain(instance))
        del self.instances[number:]

    def deploy(self) -> Process[None]:
        """Replace each instance. The new one starts before the old one drains and ends."""
        for old in tuple(self.instances):
            self.instances.append(self._new_instance())
            yield _ROLL
            self.instances.remove(old)
            self.world.simulation.start(self._drain(old))

    def stop_all(self, *, gone: bool) -> None:
        """End every process at once."""
        for instance in self.instances:
            for pool in instance.pools:
                pool.close(gone=gone)
        self.instances.clear()

    def traffic(self) -> Process[None]:
        """Start requests at the service's rate."""
        simulation, random = self.world.simulation, self.world.simulation.random
        while True:
            rate = self.service.traffic(simulation.now)
            pause = random.expovariate(rate) if rate > 0 else _NOTICE
            if pause >= _NOTICE:
                yield _NOTICE
                continue
            yield pause
            if self._ordinary and self.instances:
                (request,) = random.choices(self._ordinary, cum_weights=self._shares)
                simulation.start(self._serve(request))

    def own_traffic(self, request: Request, per_minute: float) -> Process[None]:
        """Start one kind of request at its own rate, at fairly regular intervals."""
        simulation = self.world.simulation
        yield request.begin
        while simulation.now < request.end:
            yield 60.0 / per_minute * simulation.random.uniform(0.6, 1.4)
            if self.instances and simulation.now < request.end:
                simulation.start(self._serve(request))

    def _serve(self, request: Request) -> Process[None]:
        pool = self._pool_of(self.world.simulation.random.choice(self.instances).pools)
        try:
            backend = yield from pool.acquire()
        except (PoolTimedOut, ConnectionRefused):
            return
        if self.service.adds_host:
            backend.rename(f"{self.service.application} - 10.9.0.{backend.pid % 9}:{30_000 + backend.pid % 9999}")
        leak = self._leak_of(request)
        try:
            yield from self._work(pool, backend, request, leak)
        except ConnectionLost:
            pool.discard(backend)
            return
        if leak is None:
            pool.release(backend)
        else:
            yield from self._forget(pool, backend, request, leak)

    def _pool_of(self, pools: list[RunningPool]) -> RunningPool:
        random = self.world.simulation.random
        if self.service.lopsided:
            return pools[int(random.expovariate(3.0 / len(pools))) % len(pools)]
        return random.choice(pools)

    def _leak_of(self, request: Request) -> Leak | None:
        leak, simulation = request.leak, self.world.simulation
        if leak and leak.begin <= simulation.now < leak.end and simulation.random.random() < leak.chance:
            return leak
        return None

    def _work(self, pool: RunningPool, backend: Backend, request: Request, leak: Leak | None) -> Process[None]:
        random, server = self.world.simulation.random, self.world.server
        in_transaction = pool.pool.transactions or request.explicit
        if leak:
            in_transaction = in_transaction and leak.keeps is not Keeps.CONNECTION
            in_transaction = in_transaction or leak.keeps in _IN_TRANSACTION
        if in_transaction:
            backend.begin(pool.pool.word("BEGIN"))
        if leak and leak.keeps is Keeps.BEGUN:
            return
        for _ in range(request.repeats):
            succeeded = yield from server.run(
                backend,
                request.sql,
                request.takes(random),
                writes=request.writes,
                lock=request.locks,
                shared=request.shared,
                gives_up=request.gives_up,
                fails=leak is not None and leak.keeps is Keeps.ABORTED,
            )
            if leak or not succeeded:
                return
            if request.thinks:
                seconds = request.thinks(random)
                if request.too_long:
                    self.world.leaked(backend, self.service.client, request.site, seconds=seconds)
                yield seconds
        # asyncpg's transaction block always commits.
        if in_transaction and (request.writes or request.explicit or pool.pool.reset):
            backend.end(pool.pool.word("COMMIT"))

    def _forget(self, pool: RunningPool, backend: Backend, request: Request, leak: Leak) -> Process[None]:
        random, simulation = self.world.simulation.random, self.world.simulation
        if leak.keeps is Keeps.ENGINE:
            backend.end(pool.pool.word("ROLLBACK"))
        if leak.pool_forgets:
            pool.forget()
        if random.random() >= leak.collected:
            self.world.leaked(backend, self.service.client, request.site)
            if leak.keeps is Keeps.THREAD:
                yield from self._go_on(backend, leak)
            return
        yield leak.collected_after(random)
        while not self.service.traffic(simulation.now):
            yield _NOTICE
        if leak.collected_ends:
            pool.discard(backend)
        else:
            pool.release(backend)

    def _go_on(self, backend: Backend, leak: Leak) -> Process[None]:
        """Serve the thread's next requests with the session and the transaction that it keeps."""
        random = self.world.simulation.random
        with suppress(ConnectionLost):
            while backend.alive:
                yield leak.goes_on_after(random)
                (request,) = random.choices(self._ordinary, cum_weights=self._shares)
                yield from self.world.server.run(backend, request.sql, request.takes(random), writes=request.writes)

    def _new_instance(self) -> _Instance:
        service = self.service
        if service.pooler is not None:
            if self._pooled is None:
                self._pooled = self._new_pool(service.pooler)
            return _Instance([self._pooled])
        address = f"{service.network}.{next(self._addresses)}"
        return _Instance([self._new_pool(address) for _ in range(service.workers)])

    def _new_pool(self, address: str) -> RunningPool:
        world, service = self.world, self.service
        name = service.application
        if service.suffixed:
            name += f"-{world.simulation.random.getrandbits(32):08x}"
        origin = Origin(service.database, service.user, name, address)
        pool = RunningPool(world.simulation, world.server, service.pool, origin)
        world.pools.append(pool)
        return pool

    def _drain(self, instance: _Instance) -> Process[None]:
        yield _DRAIN
        if self._pooled is None:
            for pool in instance.pools:
                pool.close()
