"""A server that accepts a connect and does not answer it: at most two backends of ours, and none left behind."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from pgwatch_sessions.core.model import Failure, FailureReason, Snapshot
from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from pgwatch_sessions.postgres.connection import HeldConnection
from tests.support.daemons import through
from tests.support.polling import failed, held, seen
from tests.support.ports import free_port, port_that_sends, port_without_answer, sockets_to
from tests.support.proxy import Proxy, proxy_to
from tests.support.servers import OwnPostgresFactory, client_backends
from tests.support.situations import locked_catalog
from tests.support.waiting import until

TERMINATE_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
ACCEPTED = "connecting: the server has accepted the connection and has not answered yet; the next poll goes on waiting"


async def seen_within(polls: int, connection: HeldConnection) -> Snapshot:
    """Poll until the server is seen; AssertionError after so many failed polls."""
    outcomes: list[Snapshot | Failure] = []
    for _ in range(polls):
        outcomes.append(await connection.poll())
        if isinstance(outcomes[-1], Snapshot):
            return outcomes[-1]
    raise AssertionError(outcomes)


@pytest.mark.promise("It has one session on a server, and at most two while one is replaced.")
@pytest.mark.parametrize("table", ["pg_authid", "pg_database"])
async def test_while_nobody_can_log_in_we_wait_with_one_connect(any_postgres: Postgres, table: str) -> None:
    """Our session is gone and a catalog is locked: one backend of ours waits, however often we poll."""
    others = client_backends(any_postgres)

    async with held(any_postgres.dsn(), deadline=0.5) as connection:
        seen(await connection.poll())
        with locked_catalog(any_postgres.dsn(), table) as superuser:
            superuser.execute(TERMINATE_OURS, [APPLICATION_NAME])
            locker = {superuser.info.backend_pid}
            failed(await connection.poll())  # finds the lost connection, or waits for the new one already
            for _ in range(4):
                failure = failed(await connection.poll())
                assert len(client_backends(any_postgres) - others - locker) <= 1
                assert (failure.reason, failure.detail) == (FailureReason.TIMEOUT, ACCEPTED)
        await seen_within(2, connection)
    until(lambda: client_backends(any_postgres) <= others)


@pytest.mark.promise("It has one session on a server, and at most two while one is replaced.")
async def test_a_server_that_freezes_in_mid_query_is_not_connected_to_again_and_again(
    own_postgres: OwnPostgresFactory,
) -> None:
    """The dropped session and one connect wait for the thaw, not a connect for each poll."""
    server = own_postgres(settings={"log_connections": "on"})

    def connects() -> int:
        return server.server.cluster.log.read_text().count("connection received")

    async with held(server.dsn(), deadline=0.5) as connection:
        seen(await connection.poll())
        before = connects()
        server.freeze()
        try:
            for _ in range(4):
                assert failed(await connection.poll()).reason is FailureReason.TIMEOUT
        finally:
            server.thaw()
        await seen_within(2, connection)
        assert connects() == before + 1
        await asyncio.to_thread(until, lambda: len(client_backends(server.server)) == 1)
    until(lambda: not client_backends(server.server))


@contextlib.contextmanager
def black_hole(postgres: Postgres) -> Iterator[Proxy]:
    """Yield a proxy that accepts connections and forwards nothing."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        proxy.black_hole()
        yield proxy


async def test_a_black_hole_is_connected_to_once_and_left_with_the_close(postgres: Postgres) -> None:
    """Ten polls are one connection; closing ends it at once, with its task and its socket."""
    with black_hole(postgres) as proxy:
        tasks = asyncio.all_tasks()
        async with held(through(proxy), deadline=0.1) as connection:
            for _ in range(10):
                failure = failed(await connection.poll())
                assert proxy.clients == 1
                assert (failure.reason, failure.detail) == (FailureReason.TIMEOUT, ACCEPTED)
            await connection.close()
            assert asyncio.all_tasks() == tasks
            assert sockets_to(proxy.port) == []
            proxy.resume()
            await asyncio.to_thread(until, lambda: proxy.clients == 0)


async def test_a_connect_that_is_answered_between_two_polls_is_used_by_the_next(postgres: Postgres) -> None:
    """It is the one that was begun, not another."""
    with black_hole(postgres) as proxy:
        async with held(through(proxy), deadline=0.2) as connection:
            failed(await connection.poll())
            (before,) = sockets_to(proxy.port)
            proxy.resume()
            await asyncio.sleep(0)
            await seen_within(2, connection)
            (after,) = sockets_to(proxy.port)
            assert after.port == before.port


async def test_a_connect_that_fails_between_two_polls_costs_no_further_poll(postgres: Postgres) -> None:
    """What was refused meanwhile is tried again at once."""
    with black_hole(postgres) as proxy:
        async with held(through(proxy), deadline=2) as connection:
            failed(await connection.poll())
            proxy.cut()
            proxy.resume()
            await asyncio.to_thread(until, lambda: sockets_to(proxy.port) == [])
            await asyncio.sleep(0.05)  # the program hears of it in its next turns
            seen(await connection.poll())


async def test_a_cancelled_poll_leaves_the_connect_to_the_next_one(postgres: Postgres) -> None:
    """Neither a second connection nor a lost one; closing still ends it."""
    with black_hole(postgres) as proxy:
        async with held(through(proxy), deadline=30) as connection:
            for _ in range(5):
                poll = asyncio.create_task(connection.poll())
                await asyncio.to_thread(until, lambda: proxy.clients)
                poll.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await poll
                assert proxy.clients == 1
            proxy.resume()
            seen(await connection.poll())
            assert proxy.clients == 1
        until(lambda: proxy.clients == 0)


async def test_closing_during_a_tls_handshake_does_not_wait_for_a_farewell() -> None:
    """The server agreed to TLS and then fell silent."""
    with port_that_sends(b"S") as port:
        async with held(f"postgresql://u@127.0.0.1:{port}/db?sslmode=require", deadline=0.5) as connection:
            assert failed(await connection.poll()).detail == ACCEPTED
            await connection.close()
            assert sockets_to(port) == []


@pytest.mark.parametrize("first", ["refuses", "does not answer"])
async def test_the_next_host_of_a_list_is_tried_when_the_first_is_away(postgres: Postgres, first: str) -> None:
    """One that answers no SYN, as behind a firewall, costs one poll's time and not every poll."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(port_without_answer()) if first == "does not answer" else free_port()
        dsn = f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{postgres.port}/postgres"

        async with held(dsn, deadline=0.5) as connection:
            await seen_within(3, connection)


async def test_a_host_that_answers_no_syn_is_named() -> None:
    """Nothing waits for it on the server, so each poll tries anew; what is waited for is said."""
    with port_without_answer() as port:
        async with held(f"postgresql://u@127.0.0.1:{port}/db", deadline=0.5) as connection:
            for _ in range(3):
                failure = failed(await connection.poll())
                assert failure.reason is FailureReason.TIMEOUT
                assert failure.detail == f"connecting: 127.0.0.1:{port} does not answer"


async def test_the_system_finds_out_when_the_servers_host_is_gone(postgres: Postgres) -> None:
    """A connection that is waited for without end has TCP keepalive; a host that is gone ends it."""
    async with held(postgres.dsn()) as connection:
        seen(await connection.poll())
        (own,) = sockets_to(postgres.port)
        assert own.keepalive
