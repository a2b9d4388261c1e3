"""The proxy of the tests, in front of a real server."""

import socket

import psycopg
import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.proxy import Proxy, proxy_to
from tests.support.servers import OwnPostgresFactory
from tests.support.waiting import until

#: The first message of a client that asks for TLS: its length, and the protocol's code. The answer is one byte.
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


def connected(proxy: Proxy) -> psycopg.Connection:
    """Connect through the proxy."""
    return psycopg.connect(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", autocommit=True, connect_timeout=5)


def sessions(postgres: Postgres, pid: int) -> int:
    """Return 1 if the server has this session, else 0."""
    with psycopg.connect(postgres.dsn()) as observer:
        return observer.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).rowcount


def test_forwards_until_the_client_leaves(postgres: Postgres) -> None:
    """A session through the proxy works, megabytes too, and ends on the server when the client closes."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        with connected(proxy) as connection:
            pid = connection.info.backend_pid
            row = connection.execute("SELECT repeat('x', 5000000)").fetchone()
            assert row == ("x" * 5_000_000,)
            assert proxy.clients == 1
        until(lambda: sessions(postgres, pid) == 0)
        until(lambda: proxy.clients == 0)


def test_black_hole_keeps_everything_open_and_silent(postgres: Postgres) -> None:
    """In a black hole nothing is answered, new clients hang, and the server does not see a client leave."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        connection = connected(proxy)
        pid = connection.info.backend_pid
        proxy.black_hole()
        connection.pgconn.send_query(b"SELECT 1")
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as newcomer:
            newcomer.sendall(SSL_REQUEST)
            with pytest.raises(TimeoutError):
                newcomer.recv(1)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        connection.close()
        assert sessions(postgres, pid) == 1
        proxy.resume()
        until(lambda: sessions(postgres, pid) == 0)
        with connected(proxy) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)


def test_cut_ends_both_sides_at_once(postgres: Postgres) -> None:
    """A cut connection fails for the client and is gone from the server; the next one works."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        connection = connected(proxy)
        pid = connection.info.backend_pid
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        until(lambda: sessions(postgres, pid) == 0)
        with connected(proxy) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
        connection.close()


def test_server_that_is_down(own_postgres: OwnPostgresFactory) -> None:
    """A client of a server that is down is disconnected."""
    own = own_postgres()
    with proxy_to("127.0.0.1", own.port) as proxy:
        own.stop()
        with pytest.raises(psycopg.OperationalError):
            connected(proxy)
