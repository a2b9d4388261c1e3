"""The daemon as a process on real servers: the sessions that it shows, and when it polls."""

import asyncio
import collections
import contextlib
import threading
from collections.abc import Iterator

import httpx
import psycopg
import pytest

from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from tests.support.daemons import Daemon, SessionCounts, daemon
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.situations import (
    aborted_transaction,
    active,
    idle,
    idle_in_transaction,
    parallel_query,
    role,
    waiting_for_lock,
)


def test_every_client_backend_is_in_one_state_and_nothing_else_is_counted(any_database: Database) -> None:
    """The states add up to the client backends of pg_stat_activity without our own."""
    dsn = any_database.dsn(application_name="orders")
    with contextlib.ExitStack() as stack:
        stack.enter_context(parallel_query(dsn))
        stack.enter_context(aborted_transaction(dsn))
        stack.enter_context(waiting_for_lock(dsn))
        stack.enter_context(idle_in_transaction(dsn))
        stack.enter_context(idle(dsn, 3))
        observer = stack.enter_context(psycopg.connect(any_database.server.dsn(), autocommit=True))
        watching = stack.enter_context(daemon(dsn=any_database.dsn()))
        seen = watching.scrape_when(lambda scrape: sum(scrape.all("connections")) == client_backends(observer))
        assert seen.connections(database=any_database.name) == counted(observer, any_database.name)
        assert sum(seen.connections(database=any_database.name).values()) == 8
        assert seen.value("lock_waiting", database=any_database.name, application="orders") == 1


def client_backends(observer: psycopg.Connection) -> int:
    """Count all client backends but the daemon's. The observer itself is counted, as the daemon counts it."""
    row = observer.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> %s",
        [APPLICATION_NAME],
    ).fetchone()
    assert row
    return int(row[0])


def counted(observer: psycopg.Connection, database: str) -> SessionCounts:
    """Count a database's sessions by client and state, as pg_stat_activity shows them."""
    rows = observer.execute(
        "SELECT datname, usename, application_name, state FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND application_name <> %s AND datname = %s",
        [APPLICATION_NAME, database],
    )
    return collections.Counter((datname, user, application, state) for datname, user, application, state in rows)


@pytest.mark.promise("It has one session on a server, and at most two while one is replaced.")
async def test_a_full_server_is_seen_and_scrapes_cost_no_connection(own_postgres: OwnPostgresFactory) -> None:
    """All 97 ordinary slots of 100 are in use, one by the daemon. Everything is shown, and 50 scrapers open no more."""
    server = own_postgres(settings={"max_connections": "100", "log_connections": "on"})
    orders = server.dsn(user="app", application_name="orders")
    with (
        role(server.dsn(), "app"),
        role(server.dsn(), "watcher", member_of=["pg_monitor"]),
        daemon(dsn=server.dsn(user="watcher")) as watching,
    ):
        with active(orders), idle_in_transaction(orders), aborted_transaction(orders), idle(orders, 93):
            with pytest.raises(psycopg.OperationalError, match="remaining connection slots"):
                psycopg.connect(server.dsn(user="app"))
            # The poll may see the refused session, or one of the others, while it still authenticates.
            full = watching.scrape_when(
                lambda scrape: scrape.value("used_slots", scope="server") == 97 and len(scrape.connections()) == 4
            )
            assert (full.value("up"), full.value("exhausted"), full.value("hidden_sessions")) == (1, 1, 0)
            assert full.value("capacity_slots", scope="server") == 97
            client = ("postgres", "app", "orders")
            assert full.connections() == {
                (*client, "idle"): 93,
                (*client, "active"): 1,
                (*client, "idle in transaction"): 1,
                (*client, "idle in transaction (aborted)"): 1,
            }
            assert len(full.all("connections", application="orders")) > 4, "states without a session are zeros"

            with observed(server.dsn()) as observations:
                await scrape_at_once(watching, clients=50, polls=10)
            assert observations == {1}
        assert watching.scrape_when(lambda scrape: scrape.value("exhausted") == 0).value("up") == 1
        connected = server.server.cluster.log.read_text().count(f"application_name={APPLICATION_NAME}")
        assert connected == 1, "a connection besides the held one"


@contextlib.contextmanager
def observed(dsn: str) -> Iterator[set[int]]:
    """Fill a set with the numbers of the daemon's sessions, counted again and again while inside."""
    counts: set[int] = set()
    enough = threading.Event()
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"

    def observe() -> None:
        with psycopg.connect(dsn, autocommit=True) as superuser:
            while not enough.wait(0.01):
                row = superuser.execute(count, [APPLICATION_NAME]).fetchone()
                counts.add(row[0] if row else -1)

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        yield counts
    finally:
        enough.set()
        observer.join()


async def scrape_at_once(watching: Daemon, *, clients: int, polls: int) -> None:
    """Scrape from so many clients at the same time, until the daemon has looked so many times; each must succeed."""

    async def scrape(client: httpx.AsyncClient) -> None:
        while True:
            assert "pgwatch_sessions_up{" in (await client.get("/metrics")).raise_for_status().text

    enough = watching.scrape().polls() + polls
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=watching.address, limits=limits, timeout=10) as client:
        scraping = asyncio.gather(*(scrape(client) for _ in range(clients)))
        await asyncio.to_thread(watching.scrape_when, lambda scrape: scrape.polls() >= enough)
        assert not scraping.done(), scraping
        scraping.cancel()
        await asyncio.wait([scraping])


def test_without_privilege_states_have_no_series_and_the_logged_grant_helps(
    postgres: Postgres, database: Database
) -> None:
    """Hidden sessions are counted and have no series. The GRANT is logged once, and running it is enough."""
    with (
        role(postgres.dsn(), "nosy"),
        idle_in_transaction(database.dsn(application_name="orders")),
        idle(database.dsn(user="nosy", application_name="own")),
        psycopg.connect(postgres.dsn(), autocommit=True) as superuser,
        daemon(dsn=postgres.dsn(user="nosy")) as watching,
    ):
        seen = watching.scrape_when(lambda scrape: scrape.value("up") == 1 and scrape.polls() > 5)
        assert seen.value("hidden_sessions") == client_backends(superuser) - 1  # the role sees its own other one
        assert seen.all("connections", application="orders") == []
        assert seen.all("idle_in_transaction_age_max_seconds", application="orders") == []
        assert seen.connections() == {(database.name, "nosy", "own", "idle"): 1}
        assert seen.value("used_slots", scope="server") == client_backends(superuser) + 1
        assert seen.all("established_total", database=database.name) != []
        (event,) = watching.events("privilege_missing")
        assert event["hidden_sessions"] >= 2
        assert event["level"] == "warning"

        superuser.execute(event["remedy"])
        seen = watching.scrape_when(lambda scrape: scrape.value("hidden_sessions") == 0)
        assert (database.name, "postgres", "orders", "idle in transaction") in seen.connections()
        assert len(watching.events("privilege_missing")) == 1


def test_a_server_from_another_programs_variable_is_logged(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL is watched if nothing else names a server, and one line of the log says so."""
    for name in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    with daemon(dsn=None, variables={"DATABASE_URL": database.dsn().replace("://", "+asyncpg://", 1)}) as watching:
        assert watching.scrape_when_up().value("up") == 1
        (chosen,) = watching.events("server_chosen")
    assert chosen["message"].startswith("using the server that DATABASE_URL names, without +asyncpg; ")
