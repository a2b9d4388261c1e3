"""Several hosts in a DSN: none hides the others, and at most two backends of ours exist, wherever they are."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from pgwatch_sessions.core.model import Failure, FailureReason, Snapshot
from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from pgwatch_sessions.postgres.connection import HeldConnection
from tests.support.polling import failed, held, seen
from tests.support.ports import free_port, port_without_answer, sockets_to
from tests.support.proxy import Proxy, proxy_to
from tests.support.servers import OwnPostgres, OwnPostgresFactory, client_backends
from tests.support.situations import locked_catalog
from tests.support.waiting import until

TERMINATE_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"


def dsn_of(*ports: int) -> str:
    """Return the DSN of hosts on this machine."""
    return f"postgresql://postgres@{','.join(f'127.0.0.1:{port}' for port in ports)}/postgres"


@contextlib.contextmanager
def proxies(*servers: Postgres) -> Iterator[list[Proxy]]:
    """Yield a proxy to each server."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(proxy_to(server.host, server.port)) for server in servers]


async def polls(connection: HeldConnection, number: int, at_each: Callable[[], None]) -> list[Snapshot | Failure]:
    """Poll so many times, and assert something after each; return the outcomes."""
    outcomes: list[Snapshot | Failure] = []
    for _ in range(number):
        outcomes.append(await connection.poll())
        at_each()
    return outcomes


async def test_a_first_host_that_accepts_and_stays_silent_does_not_hide_the_second(postgres: Postgres) -> None:
    """The second is seen at the first poll. When the first answers at last, that connection is closed."""
    with proxies(postgres, postgres) as (silent, good):
        silent.black_hole()
        async with held(dsn_of(silent.port, good.port), deadline=2) as connection:

            def two_at_the_most() -> None:
                assert (silent.clients, good.clients) == (1, 1)

            outcomes = await polls(connection, 3, two_at_the_most)
            assert [type(outcome) for outcome in outcomes] == [Snapshot] * 3
            silent.resume()
            await asyncio.to_thread(until, lambda: silent.clients == 0)
            seen(await connection.poll())
            assert good.clients == 1


async def test_a_silent_host_does_not_hide_the_primary_from_those_who_prefer_a_standby(postgres: Postgres) -> None:
    """Half of the time is for the search for a standby, half for any host."""
    with proxies(postgres, postgres) as (silent, primary):
        silent.black_hole()
        dsn = f"{dsn_of(silent.port, primary.port)}?target_session_attrs=prefer-standby"
        async with held(dsn, deadline=2) as connection:
            for _ in range(3):
                seen(await connection.poll())
                assert silent.clients + primary.clients <= 2


async def test_a_first_host_that_answers_no_syn_does_not_hide_the_second(postgres: Postgres) -> None:
    """Half of the time is spent on it, not all."""
    with port_without_answer() as port:
        async with held(dsn_of(port, postgres.port), deadline=2) as connection:
            seen(await connection.poll())


async def test_a_first_address_of_a_name_that_answers_no_syn_does_not_hide_the_second(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a host is divided among the addresses of its name."""
    real = socket.getaddrinfo

    def two_addresses(_: str, port: int, **options: Any) -> list[Any]:
        return [answer for address in ("127.0.0.2", "127.0.0.1") for answer in real(address, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with port_without_answer("127.0.0.2", postgres.port):
        async with held(f"postgresql://postgres@localhost:{postgres.port}/postgres", deadline=2) as connection:
            seen(await connection.poll())


async def test_the_host_that_worked_last_is_tried_first(postgres: Postgres) -> None:
    """A reconnect does not wait for the first host again."""
    with proxies(postgres, postgres) as (silent, good):
        silent.black_hole()
        async with held(dsn_of(silent.port, good.port), deadline=2) as connection:
            seen(await connection.poll())
            silent.resume()
            await asyncio.to_thread(until, lambda: silent.clients == 0)
            good.cut()
            await connection.poll()  # the broken connection is found by using it
            seen(await connection.poll())
            assert (silent.clients, good.clients) == (0, 1)


async def test_silent_hosts_are_waited_for_with_two_connects_and_named(postgres: Postgres) -> None:
    """However many hosts and polls there are. The one that answers first is polled, the other is left."""
    with proxies(postgres, postgres, postgres) as three:
        for proxy in three:
            proxy.black_hole()

        def two_at_the_most() -> None:
            assert [proxy.clients for proxy in three] == [1, 1, 0]

        async with held(dsn_of(*(proxy.port for proxy in three)), deadline=0.6) as connection:
            for outcome in await polls(connection, 4, two_at_the_most):
                failure = failed(outcome)
                assert failure.reason is FailureReason.TIMEOUT
                assert f"127.0.0.1:{three[1].port}: the server has accepted" in failure.detail
            (before,) = sockets_to(three[1].port)
            three[1].resume()
            async with asyncio.timeout(10):
                while not isinstance(await connection.poll(), Snapshot):
                    assert sum(proxy.clients for proxy in three) <= 2
            assert [each.port for each in sockets_to(three[1].port)] == [before.port]
        assert [sockets_to(proxy.port) for proxy in three] == [[], [], []]


def ours(*servers: OwnPostgres) -> int:
    """Count the client backends of all servers, those in start-up included."""
    return sum(len(client_backends(each.server)) for each in servers)


async def test_a_locked_host_and_one_that_works(own_postgres: OwnPostgresFactory) -> None:
    """While nobody can log in to the first, the second is polled; when that stops, the first is waited for."""
    locked, good = own_postgres(), own_postgres()
    async with held(dsn_of(locked.port, good.port), deadline=2) as connection:
        with locked_catalog(locked.dsn(), "pg_authid"):

            def two_at_the_most() -> None:
                assert ours(locked, good) <= 1 + 2  # the one that holds the lock, and ours

            outcomes = await polls(connection, 4, two_at_the_most)
            assert [type(outcome) for outcome in outcomes] == [Snapshot] * 4
            await asyncio.to_thread(good.stop)
            await polls(connection, 4, two_at_the_most)
            assert len(client_backends(locked.server)) == 2
        seen(await connection.poll())
        assert ours(locked) == 1
    until(lambda: ours(locked) == 0)


async def test_a_host_that_freezes_in_mid_query_is_left_for_the_next(own_postgres: OwnPostgresFactory) -> None:
    """Its session and the one on the other host are two, and one is left after the thaw."""
    frozen, good = own_postgres(), own_postgres()
    async with held(dsn_of(frozen.port, good.port), deadline=1) as connection:
        seen(await connection.poll())
        assert (ours(frozen), ours(good)) == (1, 0)
        frozen.freeze()
        try:
            assert failed(await connection.poll()).reason is FailureReason.TIMEOUT
            outcomes = await polls(connection, 3, lambda: None)
            assert [type(outcome) for outcome in outcomes] == [Snapshot] * 3
            assert ours(frozen, good) <= 2
        finally:
            frozen.thaw()
        await asyncio.to_thread(until, lambda: (ours(frozen), ours(good)) == (0, 1))


async def test_a_server_that_refuses_our_login_ends_the_search(own_postgres: OwnPostgresFactory) -> None:
    """As with libpq: an answer is an answer, and the host that gave it is named."""
    refusing, good = own_postgres(hba=["host all all all reject"]), own_postgres()
    async with held(dsn_of(free_port(), refusing.port, good.port)) as connection:
        failure = failed(await connection.poll())
    assert failure.reason is FailureReason.AUTHENTICATION
    assert failure.detail.startswith(f"connecting to 127.0.0.1:{refusing.port}: ")
    assert ours(good) == 0


async def test_a_session_that_was_terminated_is_not_replaced_by_two(own_postgres: OwnPostgresFactory) -> None:
    """One session on one of the hosts, before and after."""
    first, second = own_postgres(), own_postgres()
    async with held(dsn_of(first.port, second.port)) as connection:
        seen(await connection.poll())
        with psycopg.connect(first.dsn(), autocommit=True) as superuser:
            superuser.execute(TERMINATE_OURS, [APPLICATION_NAME])
        await connection.poll()
        seen(await connection.poll())
        assert ours(first, second) == 1
