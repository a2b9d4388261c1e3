"""Every expression of every dashboard, asked of a real Prometheus while a real service leaks."""

import asyncio
import contextlib
import functools
import json
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from pgwatch_sessions.demo import deployment
from pgwatch_sessions.demo.orders import BAD_CUSTOMER
from pgwatch_sessions.demo.postgres import SUPERUSER
from tests.conftest import OwnPostgresFactory
from tests.daemons import daemon
from tests.grafana.expressions import Expression, expressions, filled
from tests.grafana.prometheus import Answer, Prometheus, running_prometheus
from tests.servers import OwnPostgres
from tests.situations import idle_in_transaction
from tests.waiting import until

SERVER = 'orders (eu.1) "a|b" \\ {{x}} $1'
APPLICATION = "orders-api"
SETTINGS = ("--hold-limit", "1s", "--growth-window", "10s")
#: The client whose leaks are investigated. The overviews show all.
CLIENT = {"server": SERVER, "database": deployment.DATABASE, "user": deployment.ROLE, "application": APPLICATION}
#: What has nothing to show while nothing is or was found, and says so in other words than "No data".
OF_FINDINGS = {
    "fleet: Who leaks",
    "fleet: Sessions leaked a minute",
    "leak: Findings",
    "leak: Leaked sessions by site",
    "leak: Sessions leaked a minute",
    "leak: Findings opened and closed",
}
#: Has something to show once a look happened to see a transaction between two statements.
OF_HOLDS = "server: How long transactions sat idle"
LEAKED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A service that can leak, two daemons that watch it, and Prometheus that scrapes both."""

    server: OwnPostgres
    service: httpx.Client
    prometheus: Prometheus

    def answers(self) -> Mapping[Expression, int]:
        """Return how many series answer each expression now."""
        return {each: len(self.prometheus.ask(query_of(each))) for each in expressions()}

    def until_all_answer(self, but: Collection[str] = ()) -> None:
        """Wait until every expression has an answer, but for those of these panels, under healthy requests."""
        for expression in expressions():
            if expression.place not in but:
                until(functools.partial(self.answer, query_of(expression)), within=30)

    def answer(self, query: str) -> Answer:
        """Answer one query, after one more healthy request."""
        self.service.get("/customers")
        return self.prometheus.ask(query)

    def held(self) -> int:
        """Count the sessions that leaked, as PostgreSQL itself shows them."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle in transaction'"
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            row = connection.execute(query, [APPLICATION]).fetchone()
        assert row
        return int(row[0])


def query_of(expression: Expression) -> str:
    """Put in what a person would have chosen: the one client, or everything."""
    values: Mapping[str, str | None] = CLIENT if expression.dashboard == "leak" else dict.fromkeys(CLIENT)
    if expression.dashboard == "server":
        values = {**values, "server": SERVER}
    return filled(expression.text, values, window="10s")


@pytest.fixture
def scene(own_postgres: OwnPostgresFactory, tmp_path: Path) -> Iterator[Scene]:
    """Set the scene, before anything has leaked."""
    program = shutil.which("prometheus")
    if not program:
        pytest.skip("prometheus is not installed: apt install prometheus")
    server = own_postgres(settings={"max_connections": "30"})
    configuration = tmp_path / "config.yaml"
    configuration.write_text(json.dumps({"servers": [{"name": SERVER, "dsn": server.dsn()}]}))  # JSON is YAML
    arguments = ("--config", str(configuration), *SETTINGS)
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        runner.run(deployment.create_database(server.server))
        with psycopg.connect(server.dsn(), autocommit=True) as superuser:
            superuser.execute(f"ALTER DATABASE {deployment.DATABASE} CONNECTION LIMIT 20")
        service = deployment.deployed(server.server, fixed=False)
        address = runner.run(service.__aenter__())
        stack.callback(lambda: runner.run(service.__aexit__(None, None, None)))
        daemons = [stack.enter_context(daemon(*arguments)) for _ in range(2)]
        prometheus = stack.enter_context(running_prometheus(program, [each.address for each in daemons]))
        http = stack.enter_context(httpx.Client(base_url=address, timeout=10))
        assert http.get("/customers").status_code == 200
        yield Scene(server=server, service=http, prometheus=prometheus)


def test_every_panel_has_data_while_a_service_leaks(scene: Scene) -> None:
    """Healthy, only what is about findings is empty; while it leaks nothing is; and no session counts twice."""
    scene.until_all_answer(but={*OF_FINDINGS, OF_HOLDS})
    assert {each.place for each, series in scene.answers().items() if not series} - {OF_HOLDS} == OF_FINDINGS

    with idle_in_transaction(scene.server.dsn(database=deployment.DATABASE)):  # which ends, unlike the leaks
        for _ in range(LEAKED):
            scene.service.get(f"/orders?customer={BAD_CUSTOMER}")
            scene.service.get("/customers")
        until(lambda: scene.held() == LEAKED)
        age = f'pgwatch_sessions_idle_in_transaction_age_max_seconds{{user="{SUPERUSER}"}}'
        until(lambda: scene.prometheus.ask(age))
    scene.until_all_answer()
    answers = scene.answers()
    sys.stdout.writelines(f"{series:4} series  {each.place}\n" for each, series in answers.items())
    assert [each.place for each, series in answers.items() if not series] == []
    until(lambda: leaked_as_shown(scene.prometheus) == {float(LEAKED)})


def leaked_as_shown(prometheus: Prometheus) -> set[float | None]:
    """Return what the dashboards give as the number of leaked sessions, of two daemons' words."""
    shown = [each for each in expressions() if each.place in {"server: Leaked sessions", "leak: Leaked sessions"}]
    assert len(shown) == 2
    return {prometheus.one(query_of(each)) for each in shown}
