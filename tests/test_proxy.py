"""The proxy of the tests, in front of a real server."""

import math
import socket
import ssl
import time

import psycopg
import pytest
import trustme

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.proxy import Proxy, inverted, proxy_to
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


def test_lose_servers_leaves_clients_half_open(postgres: Postgres) -> None:
    """The server's side is gone, the client gets neither an answer nor an end, and the next one works."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        connection = connected(proxy)
        pid = connection.info.backend_pid
        proxy.lose_servers()
        until(lambda: sessions(postgres, pid) == 0)
        connection.pgconn.send_query(b"SELECT 1")
        with connected(proxy) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        connection.close()
        until(lambda: proxy.clients == 0)


def test_answers_may_be_late_slow_and_garbled(postgres: Postgres) -> None:
    """Late and slow ones are whole; a client cannot make sense of garbled ones."""
    with proxy_to(postgres.host, postgres.port) as proxy, connected(proxy) as connection:
        proxy.latency = 0.05
        proxy.bytes_per_second = 100_000
        begun = time.monotonic()
        assert connection.execute("SELECT repeat('x', 10000)").fetchone() == ("x" * 10_000,)
        assert time.monotonic() - begun >= 0.2
        proxy.bytes_per_second, proxy.answer = math.inf, inverted
        with pytest.raises(psycopg.DatabaseError):
            connection.execute("SELECT 1")


def test_reset_in_the_middle_of_an_answer(postgres: Postgres) -> None:
    """The client has a part of it, and its connection is gone."""
    with proxy_to(postgres.host, postgres.port) as proxy:
        connection = connected(proxy)
        proxy.reset_after = 100
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT repeat('x', 10000)")
        with connected(proxy) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
        connection.close()


def test_tls_in_front_of_a_server_without(postgres: Postgres) -> None:
    """Clients that ask for TLS get it, with the certificate of that moment."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with proxy_to(postgres.host, postgres.port, lambda: context) as proxy:
        dsn = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?sslmode=require"
        with psycopg.connect(dsn, autocommit=True) as connection:
            assert connection.pgconn.ssl_in_use
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_server_that_is_down(own_postgres: OwnPostgresFactory) -> None:
    """A client of a server that is down is disconnected."""
    own = own_postgres()
    with proxy_to("127.0.0.1", own.port) as proxy:
        own.stop()
        with pytest.raises(psycopg.OperationalError):
            connected(proxy)
