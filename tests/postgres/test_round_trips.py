"""How far away a server may be: the round trips until the first poll has ended, and a link that is far."""

import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import through
from tests.support.polling import held, seen
from tests.support.proxy import proxy_to
from tests.support.servers import OwnPostgresFactory
from tests.support.situations import role

#: The default of the setting `timeout`.
DEFAULT_DEADLINE = 5.0


async def test_few_round_trips_lead_to_the_first_poll(any_postgres: Postgres) -> None:
    """The question for TLS, the login, one to prepare the statement, one to run it. TCP's own is not seen here."""
    with proxy_to(any_postgres.host, any_postgres.port) as proxy:
        async with held(through(proxy)) as connection:
            seen(await connection.poll())
            assert proxy.round_trips == 4
            seen(await connection.poll())
            assert proxy.round_trips == 5


@pytest.mark.parametrize(("wanted", "more"), [("primary", 0), ("read-write", 3)])
async def test_a_role_costs_few_round_trips_more(postgres: Postgres, wanted: str, more: int) -> None:
    """A server reports by itself whether it is a standby; whether it is read only must be asked, and ours be set."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        async with held(f"{through(proxy)}?target_session_attrs={wanted}") as connection:
            seen(await connection.poll())
            assert proxy.round_trips == 4 + more


async def test_a_password_costs_two_round_trips_more(own_postgres: OwnPostgresFactory) -> None:
    """With TCP's own they are seven, and six before the statement of the first poll runs."""
    server = own_postgres(hba=["host all locked 127.0.0.1/32 scram-sha-256"])
    with (
        role(server.dsn(), "locked", password="right", member_of=["pg_monitor"]),
        proxy_to(server.server.host, server.port) as proxy,
    ):
        async with held(f"postgresql://locked:right@127.0.0.1:{proxy.port}/postgres") as connection:
            seen(await connection.poll())
            assert proxy.round_trips == 6


async def test_a_server_is_seen_at_the_first_poll_over_a_link_with_400_ms_of_latency(postgres: Postgres) -> None:
    """400 ms in each direction, and the default deadline."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        proxy.latency = 0.4
        async with held(through(proxy), deadline=DEFAULT_DEADLINE) as connection:
            seen(await connection.poll())
