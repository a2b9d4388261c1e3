"""target_session_attrs: the role of the server is judged, not our own session, which is read only on each."""

import asyncio
from typing import NamedTuple

import psycopg
import pytest

from pgwatch_sessions.core.model import Failure, FailureReason, Snapshot
from pgwatch_sessions.postgres.connecting import Connector
from pgwatch_sessions.postgres.connection import HeldConnection
from tests.support.daemons import daemon, own_sessions
from tests.support.polling import failed, held, poll, seen, target_of
from tests.support.servers import OwnPostgres, OwnPostgresFactory, client_backends
from tests.support.waiting import until


class Pair(NamedTuple):
    """A primary and its standby."""

    primary: OwnPostgres
    standby: OwnPostgres

    def dsn(self, role: str, *, standby_first: bool = False) -> str:
        """Return the DSN of both."""
        first, second = (self.standby, self.primary) if standby_first else self
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs={role}"


@pytest.fixture
def pair(own_postgres: OwnPostgresFactory) -> Pair:
    """Return a primary and its standby, which streams from it."""
    primary = own_postgres()
    standby = own_postgres(standby_of=primary)
    until(lambda: asked(primary, "SELECT count(*) FROM pg_stat_replication") == 1)
    return Pair(primary, standby)


def asked(server: OwnPostgres, question: str) -> object:
    """Return the one value that the server answers."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    return row and row[0]


def ours(pair: Pair) -> int:
    """Count our sessions on both."""
    return sum(own_sessions(server.dsn()) for server in pair)


async def seen_within(polls: int, connection: HeldConnection, pair: Pair) -> Snapshot:
    """Poll until a server is seen. There are never more than two backends of ours."""
    outcomes: list[Snapshot | Failure] = []
    for _ in range(polls):
        outcomes.append(await connection.poll())
        assert await asyncio.to_thread(ours, pair) <= 2
        if isinstance(outcomes[-1], Snapshot):
            return outcomes[-1]
    raise AssertionError(outcomes)


def test_the_host_with_the_role_is_polled(pair: Pair) -> None:
    """Wherever it stands in the DSN."""
    standbys = {"primary": False, "read-write": False, "standby": True, "read-only": True, "prefer-standby": True}
    for role, standby in standbys.items():
        for first in (False, True):
            snapshot = seen(poll(pair.dsn(role, standby_first=first)))
            assert snapshot.server.in_recovery is standby, (role, first)
    until(lambda: ours(pair) == 0)


def test_our_session_is_read_only_whatever_role_is_asked_for(pair: Pair) -> None:
    """On a server whose sessions may write, too."""

    async def setting() -> object:
        connector = Connector(target_of(pair.dsn("read-write")), jitter=lambda _: 0)
        connection = (await connector.connected(5)).connection
        try:
            return await connection.fetchval("SHOW transaction_read_only")
        finally:
            connection.terminate()

    assert asyncio.run(setting()) == "on"


def test_no_host_with_the_role_is_a_reason_of_its_own(pair: Pair) -> None:
    """What each host is, or why it cannot be reached, is said."""
    with daemon(dsn=pair.dsn("standby"), timeout="2s") as watching:
        watching.scrape_when_up()
        pair.standby.stop()
        scrape = watching.scrape_when(lambda each: bool(each.value("poll_failures_total", reason="wrong_role")))
        assert scrape.value("up") == 0
        until(lambda: [each for each in watching.events("server_down") if each["reason"] == "wrong_role"])
        detail = failed(poll(pair.dsn("standby"))).detail
        assert f"127.0.0.1:{pair.primary.port} is a primary; connection refused at" in detail
        pair.standby.start()
        watching.scrape_when_up()


async def test_a_primary_is_preferred_to_nothing(pair: Pair) -> None:
    """prefer-standby polls the primary while there is no standby."""
    await asyncio.to_thread(pair.standby.stop)
    async with held(pair.dsn("prefer-standby", standby_first=True)) as connection:
        assert seen(await connection.poll()).server.in_recovery is False
        assert seen(await connection.poll()).server.in_recovery is False


async def test_a_standby_that_is_promoted_is_left(pair: Pair) -> None:
    """At the next poll, whichever role was asked for; and found by those who ask for a primary."""
    async with (
        held(pair.dsn("standby")) as of_standbys,
        held(pair.dsn("read-only")) as of_read_only,
        held(pair.dsn("primary")) as of_primaries,
    ):
        for connection in (of_standbys, of_read_only, of_primaries):
            seen(await connection.poll())
        await asyncio.to_thread(pair.primary.stop)
        await asyncio.to_thread(asked, pair.standby, "SELECT pg_promote()")
        for connection in (of_standbys, of_read_only):
            failure = failed(await connection.poll())
            assert failure.reason is FailureReason.WRONG_ROLE
            assert f"127.0.0.1:{pair.standby.port} is " in failure.detail
        await of_primaries.poll()  # the broken connection is found by using it
        assert seen(await of_primaries.poll()).server.in_recovery is False
        assert len(client_backends(pair.standby.server)) <= 2
    until(lambda: not client_backends(pair.standby.server))


async def test_a_primary_that_becomes_read_only_is_left(pair: Pair) -> None:
    """By those who ask for read-write; those who ask for a primary stay. And it may become read-write again."""
    async with held(pair.dsn("read-write")) as of_writers, held(pair.dsn("primary")) as of_primaries:
        for connection in (of_writers, of_primaries):
            seen(await connection.poll())
        await asyncio.to_thread(_fence, pair.primary, "on")
        failure = failed(await of_writers.poll())
        assert failure.reason is FailureReason.WRONG_ROLE
        assert f"127.0.0.1:{pair.primary.port} is read only" in failure.detail
        seen(await of_primaries.poll())
        await asyncio.to_thread(_fence, pair.primary, "off")
        assert (await seen_within(2, of_writers, pair)).server.in_recovery is False


async def test_a_primary_that_freezes_is_left_for_the_standby_that_is_promoted(pair: Pair) -> None:
    """The promotion is seen at the next poll, while a connect to the frozen one goes on."""
    async with held(pair.dsn("primary"), deadline=1) as connection:
        seen(await connection.poll())
        pair.primary.freeze()
        try:
            for _ in range(3):
                assert failed(await connection.poll()).reason is FailureReason.TIMEOUT
                backends = len(client_backends(pair.primary.server) | client_backends(pair.standby.server))
                assert backends - 1 <= 2  # one is the standby's, which streams
            await asyncio.to_thread(asked, pair.standby, "SELECT pg_promote()")
            assert seen(await connection.poll()).server.in_recovery is False
            assert len(client_backends(pair.standby.server)) == 1
        finally:
            pair.primary.thaw()
        await asyncio.to_thread(until, lambda: len(client_backends(pair.primary.server)) <= 1)
        seen(await connection.poll())


def _fence(server: OwnPostgres, value: str) -> None:
    """Let the server's sessions be read only, or not, and wait until they know."""
    with psycopg.connect(server.dsn(), autocommit=True) as superuser:
        superuser.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        superuser.execute("SELECT pg_reload_conf()")
    until(lambda: asked(server, "SHOW default_transaction_read_only") == value)


@pytest.mark.parametrize("role", ["primary", "read-write"])
async def test_a_primary_that_comes_back_as_a_standby_is_left(pair: Pair, role: str) -> None:
    """After a failover the old primary follows the new one; the first host of the DSN is the wrong one then."""
    async with held(pair.dsn(role)) as connection:
        seen(await connection.poll())
        await asyncio.to_thread(pair.primary.stop)
        await asyncio.to_thread(asked, pair.standby, "SELECT pg_promote()")
        (pair.primary.data / "standby.signal").touch()
        await asyncio.to_thread(pair.primary.start)
        snapshot = await seen_within(3, connection, pair)
        assert snapshot.server.in_recovery is False
        assert await asyncio.to_thread(ours, pair) == 1
