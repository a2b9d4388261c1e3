"""The scene of the pictures: a server on which one service leaks, one works, and somebody left a console open."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg

from pgwatch_sessions.demo.postgres import Postgres, running_postgres

#: Of each application, on a server with 40 connections.
_SLOTS = 40
_POOL = 6
_LEAK_EVERY_SECONDS = 3.0
_REQUEST_SECONDS = 0.05

_ORDER = (
    "SELECT id, status, total FROM orders WHERE id = %s"
    " /*application='orders-api',route='/orders/{order_id}',framework='fastapi%%3A0.121'*/"
)
_PAYMENT = "SELECT amount FROM payments WHERE id = %s /*application='payments-api',route='/payments'*/"
_SET_UP = (
    "CREATE ROLE orders LOGIN CONNECTION LIMIT 30",
    "CREATE ROLE payments LOGIN",
    "CREATE DATABASE shop",
)
_TABLES = (
    "CREATE TABLE orders AS SELECT id, 'new' AS status, 10 * id AS total FROM generate_series(1, 100) AS id",
    "CREATE TABLE payments AS SELECT id, 10 * id AS amount FROM generate_series(1, 100) AS id",
    "GRANT SELECT ON orders, payments TO orders, payments",
)


@contextlib.contextmanager
def leaking_service() -> Iterator[Postgres]:
    """Yield a server while `orders-api` leaks a session every 3 s and `payments-api` works."""
    with running_postgres(settings={"max_connections": str(_SLOTS)}) as server, contextlib.ExitStack() as stack:
        for database, statements in (("postgres", _SET_UP), ("shop", _TABLES)):
            with psycopg.connect(server.dsn(database=database), autocommit=True) as connection:
                for statement in statements:
                    connection.execute(statement.encode())
        console = stack.enter_context(psycopg.connect(server.dsn(database="shop", application_name="psql")))
        console.execute("SELECT count(*) FROM orders")
        end = threading.Event()
        works = [lambda: _leak(server, end, stack), *[lambda: _work(server, end)] * _POOL]
        with _threads(works, end):
            yield server


def _leak(server: Postgres, end: threading.Event, stack: contextlib.ExitStack) -> None:
    """Open sessions, read an order in each, and never end the transaction, until the role may have no more."""
    dsn = server.dsn(database="shop", user="orders", application_name="orders-api")
    while not end.wait(_LEAK_EVERY_SECONDS):
        with contextlib.suppress(psycopg.OperationalError):
            stack.enter_context(psycopg.connect(dsn, prepare_threshold=None)).execute(_ORDER, [7])


def _work(server: Postgres, end: threading.Event) -> None:
    """Serve requests one after the other, each in a transaction that is rolled back."""
    dsn = server.dsn(database="shop", user="payments", application_name="payments-api")
    with psycopg.connect(dsn) as connection:
        while not end.wait(_REQUEST_SECONDS):
            connection.execute(_PAYMENT, [7])
            connection.rollback()


@contextlib.contextmanager
def _threads(works: list[Callable[[], None]], end: threading.Event) -> Iterator[None]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()
