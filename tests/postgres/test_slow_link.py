"""A link that is too slow for the texts of all statements."""

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from pgwatch_sessions.core.model import FailureReason
from pgwatch_sessions.core.statements import UNKNOWN_STATEMENT
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from tests.support.daemons import daemon, own_sessions, through
from tests.support.polling import failed, held, seen
from tests.support.proxy import proxy_to
from tests.support.servers import OwnPostgres, OwnPostgresFactory
from tests.support.waiting import until

SESSIONS = 250
#: As long as an application's statements often are, comments with tags included.
STATEMENT = f"SELECT 1 -- {'x' * 300}"


@pytest.fixture
def server(own_postgres: OwnPostgresFactory) -> Iterator[OwnPostgres]:
    """Return a server with sessions that ran statements, some of them idle in a transaction."""
    server = own_postgres(settings={"max_connections": str(SESSIONS + 20)})
    with contextlib.ExitStack() as stack:
        for number in range(SESSIONS):
            dsn = server.dsn(application_name=f"orders-service-{number % 5}")
            connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            if number % 10 == 0:
                connection.execute("BEGIN")
            connection.execute(STATEMENT.encode())
        yield server


async def test_after_two_polls_whose_answer_did_not_arrive_texts_are_left_out(server: OwnPostgres) -> None:
    """10 kB/s and the default deadline. The texts come back with the next connection."""
    with proxy_to(server.server.host, server.port) as proxy:
        proxy.bytes_per_second = 10_000
        async with held(through(proxy), deadline=5) as connection:
            for _ in range(2):
                failure = failed(await connection.poll())
                assert failure.reason is FailureReason.TIMEOUT
                assert failure.detail.startswith("polling: the answer has not arrived as a whole, only ")
                assert own_sessions(server.dsn()) <= 2
            for _ in range(2):
                snapshot = seen(await connection.poll())
                others = [each for each in snapshot.sessions if each.client.application != APPLICATION_NAME]
                assert len(others) in {SESSIONS, SESSIONS + 1}  # what counted our sessions may not have ended
                assert {session.statement for session in snapshot.sessions} == {UNKNOWN_STATEMENT}
                assert own_sessions(server.dsn()) <= 2
            proxy.bytes_per_second = 1e9
            proxy.cut()
            await connection.poll()  # the broken connection is found by using it
            assert UNKNOWN_STATEMENT not in {session.statement for session in seen(await connection.poll()).sessions}


def test_the_daemon_says_so(server: OwnPostgres) -> None:
    """Once, and once more when it reads them again. It is up in between."""
    with proxy_to(server.server.host, server.port) as proxy:
        proxy.bytes_per_second = 80_000
        with daemon(dsn=through(proxy), timeout="1s") as watching:
            scrape = watching.scrape_when_up()
            assert scrape.value("used_slots", scope="server") == SESSIONS + 1
            assert len(watching.events("statement_texts_left_out")) == 1
            proxy.bytes_per_second = 1e9
            proxy.cut()
            until(lambda: watching.events("statement_texts_read_again"))
            watching.scrape_when_up()
            assert len(watching.events("statement_texts_left_out")) == 1
