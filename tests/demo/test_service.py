"""The sample service as a process, on a real server."""

import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psycopg
import pytest

from pgwatch_sessions.demo.orders import BAD_CUSTOMER
from pgwatch_sessions.demo.service import orders_leaking
from tests.support.servers import Database
from tests.support.waiting import until

POOL = {"ORDERS_POOL_SIZE": "2", "ORDERS_MAX_OVERFLOW": "1", "ORDERS_POOL_TIMEOUT": "0.1"}
LIMIT = 3
BAD = f"/orders?customer={BAD_CUSTOMER}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service, and a connection that observes its sessions."""

    process: subprocess.Popen[str]
    http: httpx.Client
    observer: psycopg.Connection

    def statuses(self, *paths: str) -> list[int]:
        """Request each path in turn and return the status codes."""
        return [self.http.get(path).status_code for path in paths]

    def sessions(self) -> list[tuple[str, str]]:
        """Return state and statement of each session."""
        seen = "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
        return self.observer.execute(seen, ["orders-api"]).fetchall()

    def held(self) -> list[str]:
        """Return the last statement of each session that is idle in a transaction."""
        return [statement for state, statement in self.sessions() if state == "idle in transaction"]


@contextlib.contextmanager
def running_service(database: Database, *options: str, **environment: str) -> Iterator[Service]:
    """Run the service until the block ends."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "pgwatch_sessions.demo.service", *options],
                env={**os.environ, "ORDERS_DSN": database.dsn(), **POOL, **environment},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout
        url = process.stdout.readline().strip()
        yield Service(
            process=process,
            http=stack.enter_context(httpx.Client(base_url=url, timeout=30)),
            observer=stack.enter_context(psycopg.connect(database.dsn(), autocommit=True)),
        )


def test_mistake_leaks_one_connection_per_bad_request(database: Database) -> None:
    """Each bad request leaves its session idle in transaction; when all connections have leaked, every route fails."""
    with running_service(database) as service:
        assert service.statuses(*[BAD] * (LIMIT - 1)) == [500] * (LIMIT - 1)
        # Healthy requests on the last connection, enough for many runs of the garbage collector.
        assert service.statuses(*["/customers", "/orders?customer=1", "/orders/1"] * 50) == [200] * 150
        assert len(service.held()) == LIMIT - 1
        assert service.statuses(BAD, "/customers") == [500, 503]
        assert len(service.held()) == LIMIT
        pool = service.http.get("/pool").json()
    assert (pool["checked_out"], pool["overflow"], pool["timeouts"], pool["fixed"]) == (LIMIT, 1, 1, False)
    assert pool["wait_p95"] < 1.0


def test_held_statement_names_its_route_and_the_line_that_leaks(database: Database) -> None:
    """The server shows both in tags; the tags have no values that change per request."""
    with running_service(database) as service:
        service.statuses(BAD, BAD)
        [statement] = set(service.held())
    source = inspect.getsource(sys.modules[orders_leaking.__module__])
    line = source[: source.index("await session.scalars")].count("\n") + 1
    assert statement.startswith(
        "/*application='orders-api',route='/orders',file='pgwatch_sessions/demo/service.py',"
        f"line='{line}',func='orders_leaking'*/ SELECT "
    )
    assert str(BAD_CUSTOMER) not in statement
    assert "traceparent" not in statement


def test_metrics_show_the_pool_and_the_line_that_leaks(database: Database) -> None:
    """They need no connection, so they are served when the pool is empty, too."""
    with running_service(database) as service:
        service.statuses(*[BAD] * LIMIT, "/customers")
        metrics = service.http.get("/metrics", follow_redirects=True).text
    pool = 'db_client_connection_pool_name="orders"'
    assert f'db_client_connection_count{{{pool},db_client_connection_state="used"}} {LIMIT}.0\n' in metrics
    assert f"db_client_connection_timeouts_total{{{pool}}} 1.0\n" in metrics
    site = r"pgwatch_sessions/demo/service\.py:\d+ in orders_leaking"
    assert re.search(rf'^db_client_connection_borrowed{{{pool},site="{site}"}} {LIMIT}\.0$', metrics, re.MULTILINE)


def test_fix_returns_every_connection_to_the_pool(database: Database) -> None:
    """With the fix, the same requests fail with the same status and leak nothing."""
    with running_service(database, ORDERS_FIXED="1") as service:
        assert service.statuses(*[BAD] * (2 * LIMIT), "/customers") == [500] * (2 * LIMIT) + [200]
        assert service.held() == []
        assert service.http.get("/pool").json()["checked_out"] == 0


def test_post_fix_frees_the_leaked_connections(database: Database) -> None:
    """The sessions that leaked are closed, and further bad requests leak none."""
    with running_service(database) as service:
        assert service.statuses(*[BAD] * LIMIT, "/customers") == [500] * LIMIT + [503]
        assert service.http.post("/fix").status_code == 200
        until(lambda: service.held() == [])
        assert service.statuses(*[BAD] * LIMIT, "/customers") == [500] * LIMIT + [200]
        assert service.held() == []


def test_sigterm_ends_the_service_and_its_sessions(database: Database) -> None:
    """A leaked session neither delays the end nor outlives the process."""
    with running_service(database) as service:
        service.statuses(BAD, "/customers")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=5) == -signal.SIGTERM
        until(lambda: service.sessions() == [])


def test_second_start_keeps_the_tables(database: Database) -> None:
    """A second start on the same database adds no rows."""
    with running_service(database) as service:
        first = service.http.get("/orders?customer=1").json()
    with running_service(database) as service:
        assert service.http.get("/orders?customer=1").json() == first


def test_listens_on_the_given_address(database: Database) -> None:
    """By default it listens on 127.0.0.1 only; in a container it can listen on all addresses."""
    with running_service(database) as service, pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.2:{service.http.base_url.port}/customers")
    with running_service(database, "--host=0.0.0.0") as service:
        assert httpx.get(f"http://127.0.0.2:{service.http.base_url.port}/customers").status_code == 200
