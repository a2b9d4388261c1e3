import asyncio
import contextlib
import logging
from pathlib import Path

import asyncpg
import psycopg
import pytest

from pgwatch_sessions.core.model import FailureReason, LimitScope
from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME, Connector
from pgwatch_sessions.postgres.errors import failure_of
from pgwatch_sessions.postgres.target import Target
from tests.support.daemons import through
from tests.support.polling import failed, held, poll, seen
from tests.support.proxy import proxy_to
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.situations import idle, role
from tests.support.waiting import until


def own_pids(dsn: str) -> set[int]:
    """Return the pids of our sessions on the server, as another session sees them."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        return {pid for (pid,) in connection.execute(query, [APPLICATION_NAME])}


def own_sessions(dsn: str) -> int:
    """Count them."""
    return len(own_pids(dsn))


@pytest.mark.promise("It has one session on a server, and at most two while one is replaced.")
async def test_one_connection_is_held_from_poll_to_poll(postgres: Postgres) -> None:
    """It is the same session each time, and gone when closed."""
    async with held(postgres.dsn()) as connection:
        for _ in range(3):
            seen(await connection.poll())
            assert await asyncio.to_thread(own_sessions, postgres.dsn()) == 1
    until(lambda: own_sessions(postgres.dsn()) == 0)


@pytest.mark.promise("It is read-only.")
async def test_our_session_is_bounded_by_the_server_too(database: Database) -> None:
    """Read only, with time-outs, and exempt from those that would end an idle session."""
    expected = {
        "default_transaction_read_only": "on",
        "statement_timeout": "1200ms",
        "lock_timeout": "1200ms",
        "idle_in_transaction_session_timeout": "1200ms",
        "idle_session_timeout": "0",
        "work_mem": "32MB",
        "application_name": APPLICATION_NAME,
    }

    connector = Connector(Target(name="db", dsn=database.dsn()), jitter=lambda _: 0)
    connection = (await connector.connected(1.5)).connection
    try:
        settings = {name: await connection.fetchval(f"SHOW {name}") for name in expected}
    finally:
        await connection.close()
    assert settings == expected


@pytest.mark.parametrize(
    ("parameters", "reason", "said"),
    [
        pytest.param({"database": "nowhere"}, FailureReason.OTHER, "PGDATABASE=postgres", id="no such database"),
        pytest.param({"user": "nobody_at_all"}, FailureReason.AUTHENTICATION, "nobody_at_all", id="no such role"),
        pytest.param({"sslmode": "require"}, FailureReason.NETWORK, "SSL", id="no TLS"),
    ],
)
def test_a_refused_connection_has_a_reason(
    postgres: Postgres, parameters: dict[str, str], reason: FailureReason, said: str
) -> None:
    """Nothing is raised for what a server can do."""
    failure = failed(poll(postgres.dsn(**parameters)))
    assert failure.reason is reason
    assert failure.detail.startswith("connecting: ")
    assert said in failure.detail


def test_a_pooler_is_told_as_one() -> None:
    """PgBouncer refuses the settings that bound our session, in its own words."""
    refused = asyncpg.ProtocolViolationError("unsupported startup parameter: statement_timeout")
    failure = failure_of(refused, doing="connecting", lost=True)
    assert failure.reason is FailureReason.PROTOCOL
    assert failure.detail.endswith("that is a pooler: connect to PostgreSQL itself")


@pytest.mark.promise("Passwords stay secret.")
def test_a_wrong_password_is_an_authentication_failure_that_does_not_repeat_it(
    own_postgres: OwnPostgresFactory,
) -> None:
    """Neither in the detail nor in its representation."""
    server = own_postgres(hba=["host all locked 127.0.0.1/32 scram-sha-256"])
    with role(server.dsn(), "locked", password="right"):
        failure = failed(poll(server.dsn(user="locked", password="wr0ng-secret")))
    assert failure.reason is FailureReason.AUTHENTICATION
    assert "wr0ng-secret" not in repr(failure)


async def test_the_password_is_asked_again_at_each_connect(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """A rotated password is found without a restart; an unreadable file is an authentication failure."""
    server = own_postgres(hba=["host all locked 127.0.0.1/32 scram-sha-256"])
    file = tmp_path / "password"

    with role(server.dsn(), "locked", password="right", member_of=["pg_monitor"]):
        async with held(server.dsn(user="locked"), password=file.read_text) as connection:
            failure = failed(await connection.poll())
            assert failure.reason is FailureReason.AUTHENTICATION
            assert str(file) in failure.detail
            file.write_text("old")
            assert failed(await connection.poll()).reason is FailureReason.AUTHENTICATION
            file.write_text("right")
            seen(await connection.poll())


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://u:s3cret#p@127.0.0.1/db", "postgresql://u:s3cret@127.0.0.1:99999/db", "mysql://u:s3cret@h/db"],
)
def test_a_dsn_that_makes_no_sense_is_a_failure_that_does_not_quote_it(dsn: str) -> None:
    """Part of the password may be what does not parse."""
    assert "s3cret" not in repr(failed(poll(dsn)))


async def test_a_stopped_server_is_a_network_failure_and_seen_again_at_the_next_poll(
    own_postgres: OwnPostgresFactory,
) -> None:
    """No restart of ours is needed after a restart of theirs."""
    server = own_postgres()

    async with held(server.dsn()) as connection:
        seen(await connection.poll())
        await asyncio.to_thread(server.stop)
        assert failed(await connection.poll()).reason is FailureReason.NETWORK
        assert failed(await connection.poll()).reason is FailureReason.NETWORK
        await asyncio.to_thread(server.start)
        seen(await connection.poll())


async def test_a_server_that_was_restarted_between_two_polls_costs_one_of_them(
    own_postgres: OwnPostgresFactory,
) -> None:
    """The broken connection is found by using it."""
    server = own_postgres()

    async with held(server.dsn()) as connection:
        first = seen(await connection.poll())
        await asyncio.to_thread(server.restart)
        await connection.poll()
        second = seen(await connection.poll())
        assert first.server.started_at != second.server.started_at


async def test_a_crashing_server_is_starting_up_or_away(own_postgres: OwnPostgresFactory) -> None:
    """The reason is said while it lasts."""
    server = own_postgres()

    async with held(server.dsn()) as connection:
        seen(await connection.poll())
        await asyncio.to_thread(server.crash)
        assert failed(await connection.poll()).reason in {FailureReason.NETWORK, FailureReason.STARTING_UP}


async def test_a_frozen_server_costs_no_more_than_the_deadline(own_postgres: OwnPostgresFactory) -> None:
    """An open connection and a new one both time out, and the first poll after the thaw succeeds."""
    server = own_postgres()

    async with held(server.dsn(), deadline=0.8) as connection:
        seen(await connection.poll())
        server.freeze()
        try:
            async with asyncio.timeout(10):
                assert failed(await connection.poll()).reason is FailureReason.TIMEOUT
                assert failed(await connection.poll()).reason is FailureReason.TIMEOUT
        finally:
            server.thaw()
        seen(await connection.poll())
    until(lambda: own_sessions(server.dsn()) == 0)


async def test_a_black_hole_costs_no_more_than_the_deadline(postgres: Postgres) -> None:
    """Neither the poll nor the goodbye waits for an answer that will not come."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        async with held(through(proxy), deadline=0.8) as connection:
            seen(await connection.poll())
            proxy.black_hole()
            async with asyncio.timeout(10):
                assert failed(await connection.poll()).reason is FailureReason.TIMEOUT
            proxy.resume()
            seen(await connection.poll())
            proxy.black_hole()
    until(lambda: own_sessions(postgres.dsn()) == 0)


async def test_a_cut_connection_is_replaced(postgres: Postgres) -> None:
    """There is one session afterwards, not two."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        async with held(through(proxy)) as connection:
            seen(await connection.poll())
            proxy.cut()
            await connection.poll()
            seen(await connection.poll())
            assert proxy.clients == 1


async def test_a_terminated_session_is_replaced(postgres: Postgres) -> None:
    """Somebody ended all sessions, ours among them."""
    async with held(postgres.dsn()) as connection:
        seen(await connection.poll())
        await asyncio.to_thread(_terminate_ours, postgres.dsn())
        await connection.poll()  # whether the driver has heard of it by now is a matter of luck
        seen(await connection.poll())
        assert await asyncio.to_thread(own_sessions, postgres.dsn()) == 1


def _terminate_ours(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [APPLICATION_NAME]
        )


async def test_a_full_server_is_seen_by_the_held_connection_and_refuses_a_new_one(
    own_postgres: OwnPostgresFactory,
) -> None:
    """A monitor that connects at each poll sees nothing now."""
    server = own_postgres(settings={"max_connections": "12", "superuser_reserved_connections": "2"})
    with role(server.dsn(), "app") as app, role(server.dsn(), "watcher", member_of=["pg_monitor"]) as watcher:
        async with held(server.dsn(user=watcher)) as connection:
            seen(await connection.poll())
            with idle(server.dsn(user=app), 9):
                snapshot = seen(await connection.poll())
                assert len(snapshot.sessions) == 9
                newcomer = await asyncio.to_thread(poll, server.dsn(user=watcher))
                assert failed(newcomer).reason is FailureReason.EXHAUSTED
                assert failed(newcomer).exhausted_scope is LimitScope.SERVER


def test_a_limit_of_ours_is_not_the_servers(postgres: Postgres, database: Database) -> None:
    """SQLSTATE 53300 is raised for a role's and a database's own limit as well. The text says which one."""
    with role(postgres.dsn(), "narrow", connection_limit=1) as narrow, idle(postgres.dsn(user=narrow)):
        failure = failed(poll(postgres.dsn(user=narrow)))
    assert (failure.reason, failure.exhausted_scope) == (FailureReason.OWN_LIMIT, LimitScope.ROLE)
    assert failure.detail == 'connecting: too many connections for role "narrow"'
    with psycopg.connect(postgres.dsn(), autocommit=True) as superuser:
        superuser.execute(f'ALTER DATABASE "{database.name}" CONNECTION LIMIT 0')
    with role(postgres.dsn(), "ordinary") as ordinary:
        failure = failed(poll(database.dsn(user=ordinary)))
    assert (failure.reason, failure.exhausted_scope) == (FailureReason.OWN_LIMIT, LimitScope.DATABASE)


async def test_refusals_without_end_are_failures_without_end() -> None:
    """A server may be down for days; the wait before each attempt stays what it is."""
    async with held("postgresql://u@127.0.0.1:1/x", jitter=lambda _: 0) as connection:
        for _ in range(1100):
            assert failed(await connection.poll()).reason is FailureReason.NETWORK


async def test_a_slow_statement_costs_the_poll_and_not_the_session(postgres: Postgres) -> None:
    """On a full server there would be no other."""
    async with held(postgres.dsn(), deadline=1.0) as connection:
        seen(await connection.poll())
        before = await asyncio.to_thread(own_pids, postgres.dsn())
        with psycopg.connect(postgres.dsn(), autocommit=True) as blocker:
            blocker.execute("BEGIN")
            blocker.execute("LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE")
            assert failed(await connection.poll()).reason is FailureReason.TIMEOUT
            blocker.execute("ROLLBACK")
        seen(await connection.poll())
        assert await asyncio.to_thread(own_pids, postgres.dsn()) == before


async def test_a_cancelled_poll_leaves_no_statement_and_no_session(own_postgres: OwnPostgresFactory) -> None:
    """The daemon may be told to end in the middle of a poll."""
    server = own_postgres()

    async with held(server.dsn()) as connection:
        seen(await connection.poll())
        server.freeze()
        poll_task = asyncio.create_task(connection.poll())
        await asyncio.sleep(0)
        poll_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await poll_task
        server.thaw()
    until(lambda: own_sessions(server.dsn()) == 0)


async def test_nothing_is_logged_by_the_driver(
    own_postgres: OwnPostgresFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Failures are values; asyncio has nothing to complain about."""
    caplog.set_level(logging.WARNING)
    server = own_postgres()
    async with held(server.dsn(), deadline=1.0) as connection:
        seen(await connection.poll())
        server.freeze()
        failed(await connection.poll())
        server.thaw()
    assert caplog.records == []
