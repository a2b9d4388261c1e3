"""A server that accepts a connect and does not answer it: at most two backends of ours, and none left behind."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from pgwatch_sessions.core.model import Failure, Reason, Snapshot
from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connection import APPLICATION_NAME, HeldConnection
from tests.conftest import OwnPostgresFactory
from tests.daemons import through
from tests.ports import free_port, port_that_sends, port_without_answer, sockets_to
from tests.postgres.looking import failed, held, looking, seen
from tests.proxy import Proxy, proxy_to
from tests.servers import client_backends
from tests.situations import locked_catalog
from tests.waiting import until

TERMINATE_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
ACCEPTED = "connecting: the server has accepted the connection and has not answered yet; the next poll goes on waiting"


async def seen_within(polls: int, connection: HeldConnection) -> Snapshot:
    """Poll until the server is seen; AssertionError after so many failed polls."""
    outcomes: list[Snapshot | Failure] = []
    for _ in range(polls):
        outcomes.append(await connection.look())
        if isinstance(outcomes[-1], Snapshot):
            return outcomes[-1]
    raise AssertionError(outcomes)


@pytest.mark.parametrize("table", ["pg_authid", "pg_database"])
def test_while_nobody_can_log_in_we_wait_with_one_connect(any_postgres: Postgres, table: str) -> None:
    """Our session is gone and a catalog is locked: one backend of ours waits, however often we poll."""
    others = client_backends(any_postgres)

    async def use(connection: HeldConnection) -> None:
        seen(await connection.look())
        with locked_catalog(any_postgres.dsn(), table) as superuser:
            superuser.execute(TERMINATE_OURS, [APPLICATION_NAME])
            locker = {superuser.info.backend_pid}
            failed(await connection.look())  # finds the lost connection, or waits for the new one already
            for _ in range(4):
                begun = time.monotonic()
                failure = failed(await connection.look())
                assert time.monotonic() - begun < 1
                assert len(client_backends(any_postgres) - others - locker) <= 1
                assert (failure.reason, failure.detail) == (Reason.TIMEOUT, ACCEPTED)
        await seen_within(2, connection)

    looking(use, held(any_postgres.dsn(), timeout=0.5))
    until(lambda: client_backends(any_postgres) <= others)


def test_a_server_that_freezes_in_mid_query_is_not_connected_to_again_and_again(
    own_postgres: OwnPostgresFactory,
) -> None:
    """The dropped session and one connect wait for the thaw, not a connect for each poll."""
    server = own_postgres(settings={"log_connections": "on"})

    def connects() -> int:
        return server.server.cluster.log.read_text().count("connection received")

    async def use(connection: HeldConnection) -> None:
        seen(await connection.look())
        before = connects()
        server.freeze()
        try:
            for _ in range(4):
                assert failed(await connection.look()).reason is Reason.TIMEOUT
        finally:
            server.thaw()
        await seen_within(2, connection)
        assert connects() == before + 1
        await asyncio.to_thread(until, lambda: len(client_backends(server.server)) == 1)

    looking(use, held(server.dsn(), timeout=0.5))
    until(lambda: not client_backends(server.server))


@contextlib.contextmanager
def black_hole(postgres: Postgres) -> Iterator[Proxy]:
    """Yield a proxy that accepts connections and forwards nothing."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        proxy.black_hole()
        yield proxy


def test_a_black_hole_is_connected_to_once_and_left_with_the_close(postgres: Postgres) -> None:
    """Ten polls are one connection; closing ends it at once, with its task and its socket."""
    with black_hole(postgres) as proxy:

        async def use(connection: HeldConnection) -> None:
            for _ in range(10):
                failure = failed(await connection.look())
                assert proxy.clients == 1
                assert (failure.reason, failure.detail) == (Reason.TIMEOUT, ACCEPTED)
            begun = time.monotonic()
            await connection.close()
            assert time.monotonic() - begun < 0.2
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert sockets_to(proxy.port) == []
            proxy.resume()
            await asyncio.to_thread(until, lambda: proxy.clients == 0)

        looking(use, held(through(proxy), timeout=0.1))


def test_a_connect_that_is_answered_between_two_polls_is_used_by_the_next(postgres: Postgres) -> None:
    """It is the one that was begun, not another."""
    with black_hole(postgres) as proxy:

        async def use(connection: HeldConnection) -> None:
            failed(await connection.look())
            (before,) = sockets_to(proxy.port)
            proxy.resume()
            await asyncio.sleep(0)
            await seen_within(2, connection)
            (after,) = sockets_to(proxy.port)
            assert after.port == before.port

        looking(use, held(through(proxy), timeout=0.2))


def test_a_connect_that_fails_between_two_polls_costs_no_further_poll(postgres: Postgres) -> None:
    """What was refused meanwhile is tried again at once."""
    with black_hole(postgres) as proxy:

        async def use(connection: HeldConnection) -> None:
            failed(await connection.look())
            proxy.cut()
            proxy.resume()
            await asyncio.to_thread(until, lambda: sockets_to(proxy.port) == [])
            await asyncio.sleep(0.05)  # the program hears of it in its next turns
            seen(await connection.look())

        looking(use, held(through(proxy), timeout=2))


def test_a_cancelled_poll_leaves_the_connect_to_the_next_one(postgres: Postgres) -> None:
    """Neither a second connection nor a lost one; closing still ends it."""
    with black_hole(postgres) as proxy:

        async def use(connection: HeldConnection) -> None:
            for _ in range(5):
                poll = asyncio.create_task(connection.look())
                await asyncio.to_thread(until, lambda: proxy.clients)
                poll.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await poll
                assert proxy.clients == 1
            proxy.resume()
            seen(await connection.look())
            assert proxy.clients == 1

        looking(use, held(through(proxy), timeout=30))
        until(lambda: proxy.clients == 0)


def test_closing_during_a_tls_handshake_does_not_wait_for_a_farewell() -> None:
    """The server agreed to TLS and then fell silent."""
    with port_that_sends(b"S") as port:

        async def use(connection: HeldConnection) -> None:
            assert failed(await connection.look()).detail == ACCEPTED
            await connection.close()
            assert sockets_to(port) == []

        looking(use, held(f"postgresql://u@127.0.0.1:{port}/db?sslmode=require", timeout=0.5))


@pytest.mark.parametrize("first", ["refuses", "does not answer"])
def test_the_next_host_of_a_list_is_tried_when_the_first_is_away(postgres: Postgres, first: str) -> None:
    """One that answers no SYN, as behind a firewall, costs one poll's time and not every poll."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(port_without_answer()) if first == "does not answer" else free_port()
        dsn = f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{postgres.port}/postgres"

        async def use(connection: HeldConnection) -> None:
            await seen_within(3, connection)

        looking(use, held(dsn, timeout=0.5))


def test_a_host_that_answers_no_syn_is_named() -> None:
    """Nothing waits for it on the server, so each poll tries anew; what is waited for is said."""
    with port_without_answer() as port:

        async def use(connection: HeldConnection) -> None:
            for _ in range(3):
                failure = failed(await connection.look())
                assert failure.reason is Reason.TIMEOUT
                assert failure.detail == f"connecting: 127.0.0.1:{port} does not answer"

        looking(use, held(f"postgresql://u@127.0.0.1:{port}/db", timeout=0.5))


def test_the_system_finds_out_when_the_servers_host_is_gone(postgres: Postgres) -> None:
    """A connection that is waited for without end has TCP keepalive; a host that is gone ends it."""

    async def use(connection: HeldConnection) -> None:
        seen(await connection.look())
        (own,) = sockets_to(postgres.port)
        assert own.keepalive

    looking(use, held(postgres.dsn()))
