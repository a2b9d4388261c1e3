"""Run everything that takes part: four servers, a leaking service, two daemons, Prometheus, Alertmanager, a webhook."""

import asyncio
import contextlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg

from pgwatch_sessions.demo import service_process
from pgwatch_sessions.demo.orders import BAD_CUSTOMER
from tests.e2e import scaled
from tests.e2e.alertmanager import Pages, running_alertmanager, webhook_server
from tests.e2e.prometheus import Prometheus, running_prometheus
from tests.e2e.timeline import Timeline
from tests.support.ports import free_port
from tests.support.programs import environment
from tests.support.restartable_daemon import RestartableDaemon
from tests.support.servers import OwnPostgres, OwnPostgresFactory
from tests.support.situations import role
from tests.support.waiting import until

#: Server names with characters that are special in a string, a pattern or a template.
ORDERS = 'orders (eu.1) "a|b" \\ {{x}} $1'
BILLING = "billing <b>&amp; 'c' {d} [e] ^%"
REPORTS = "reports"
ARCHIVE = "archive"
#: The billing server again, polled with a role that may not see session states.
HIDDEN = "billing, as anybody"
#: A server that does not exist: nothing listens at its address.
ABSENT = "ledger"
APPLICATION = "orders-api"
SITE = "/orders"
#: The client whose leaks are investigated.
CLIENT = {
    "server": ORDERS,
    "database": service_process.DATABASE,
    "user": service_process.ROLE,
    "application": APPLICATION,
}
#: A connection limit above the pool's size, so that a slow leak is more than an hour from it.
ROOMY = 100


class Service:
    """The leaking sample service, which can be redeployed."""

    def __init__(self, server: OwnPostgres, runner: asyncio.Runner) -> None:
        self._server = server
        self._runner = runner
        self._process = contextlib.AsyncExitStack()
        self._port = free_port()

    @property
    def address(self) -> str:
        """Host and port, the same after each deployment, as Prometheus expects it."""
        return f"127.0.0.1:{self._port}"

    def deploy(self, *, fixed: bool) -> None:
        """Replace the process, and so its sessions, by one with the bug or with the fix."""
        self.stop()
        service = service_process.running_service(self._server.server, is_fixed=fixed, port=self._port)
        self._runner.run(self._process.enter_async_context(service))

    def stop(self) -> None:
        """Stop the process."""
        self._runner.run(self._process.aclose())

    def work(self) -> None:
        """Make a healthy request."""
        self._get("/customers")

    def leak(self) -> None:
        """Make a request that leaks a session, or fails because none is left."""
        self._get(f"/orders?customer={BAD_CUSTOMER}")

    def _get(self, path: str) -> int:
        return httpx.get(f"http://{self.address}{path}", timeout=10).status_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The running processes, and the record of the run."""

    timeline: Timeline
    #: Running servers by name.
    servers: Mapping[str, OwnPostgres]
    service: Service
    daemons: Sequence[RestartableDaemon]
    #: The configuration file of the daemons.
    configuration: Path
    prometheus: Prometheus
    alertmanager: httpx.Client
    pages: Pages

    def held_sessions(self) -> int:
        """Count the leaked sessions of the service in pg_stat_activity."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle in transaction'"
        with psycopg.connect(self.servers[ORDERS].dsn(), autocommit=True) as connection:
            row = connection.execute(query, [APPLICATION]).fetchone()
        assert row
        return int(row[0])

    def wait_for_polls(self, count: int) -> None:
        """Wait until the first daemon has polled the orders server `count` more times."""
        labels = matchers({"server": ORDERS, "instance": self.daemons[0].address})

        def polls() -> float:
            return self.prometheus.value(f"pgwatch_sessions_poll_duration_seconds_count{{{labels}}}") or 0

        target = until(polls) + count
        until(lambda: polls() >= target)


def matchers(labels: Mapping[str, str]) -> str:
    """Return PromQL matchers for exactly these values."""
    return ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())


def set_connection_limits(server: OwnPostgres, limit: int) -> None:
    """Set the connection limits of the service's role and database. The daemons notice within half a minute."""
    with psycopg.connect(server.dsn(), autocommit=True) as superuser:
        superuser.execute(f"ALTER ROLE {service_process.ROLE} CONNECTION LIMIT {limit}".encode())
        superuser.execute(f"ALTER DATABASE {service_process.DATABASE} CONNECTION LIMIT {limit + 8}".encode())


@contextlib.contextmanager
def running_scene(own_postgres: OwnPostgresFactory, folder: Path) -> Iterator[Scene]:
    """Start everything. Nothing has leaked yet."""
    timeline = Timeline()
    servers = {
        ORDERS: own_postgres(settings={"max_connections": str(ROOMY + 50)}),
        BILLING: own_postgres(settings={"max_connections": "60"}),
        REPORTS: own_postgres(settings={"max_connections": "20"}),
        ARCHIVE: own_postgres(settings={"max_connections": "10"}),
    }
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        runner.run(service_process.create_database(servers[ORDERS].server))
        set_connection_limits(servers[ORDERS], ROOMY)
        service = Service(servers[ORDERS], runner)
        stack.callback(service.stop)
        service.deploy(fixed=False)
        anybody = stack.enter_context(role(servers[BILLING].dsn(), "anybody"))
        dsns = {name: server.dsn() for name, server in servers.items()}
        dsns[HIDDEN] = servers[BILLING].dsn(user=anybody)
        dsns[ABSENT] = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
        configuration = _daemon_configuration(dsns, folder)
        daemons = stack.enter_context(running_daemons(configuration, folder, count=2))
        pages = Pages()
        webhook = stack.enter_context(webhook_server(pages))
        alertmanager = stack.enter_context(running_alertmanager(scaled.alertmanager(webhook=webhook)))
        rules = folder / "rules"
        rules.mkdir()
        scaled.write_rules(rules)
        applications = folder / "applications.json"
        applications.write_text(json.dumps([{"targets": [service.address], "labels": {"application": APPLICATION}}]))
        scraping = scaled.prometheus(
            rules=rules,
            alertmanager=urllib.parse.urlsplit(str(alertmanager.base_url)).netloc,
            daemons=[daemon.address for daemon in daemons],
            applications=applications,
        )
        prometheus = stack.enter_context(running_prometheus(scraping, *scaled.FLAGS))
        scene = Scene(
            timeline=timeline,
            servers=servers,
            service=service,
            daemons=daemons,
            configuration=configuration,
            prometheus=prometheus,
            alertmanager=alertmanager,
            pages=pages,
        )
        yield scene


def _daemon_configuration(dsns: Mapping[str, str], folder: Path) -> Path:
    file = folder / "config.yaml"
    file.write_text(json.dumps({"servers": [{"name": name, "dsn": dsn} for name, dsn in dsns.items()]}))
    return file


@contextlib.contextmanager
def running_daemons(configuration: Path, folder: Path, count: int) -> Iterator[list[RestartableDaemon]]:
    """Run `count` daemons, of which the first has a `state_dir`.

    A daemon that is killed must be started again before the block ends.
    """
    common = ("--config", str(configuration))
    daemons = [
        RestartableDaemon(
            folder / f"daemon-{number}.log",
            *(common if number else (*common, "--state-dir", str(folder / "state"))),
            env=environment(**scaled.DAEMON),
        )
        for number in range(count)
    ]
    try:
        for daemon in daemons:
            daemon.start()
        yield daemons
        for daemon in daemons:
            daemon.stop()
    finally:
        for daemon in daemons:
            daemon.abandon()
