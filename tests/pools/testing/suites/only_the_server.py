"""Tests that return each connection to its pool, but leave its transaction open: only the server shows that."""

import os
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text

DSN = os.environ["TEST_DSN"]
PSYCOPG = DSN.replace("postgresql:", "postgresql+psycopg:")


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """A connection that a module's tests share in one transaction: nothing is wrong with it."""
    with create_engine(PSYCOPG).connect() as connection:
        connection.execute(text("SELECT 1"))
        yield connection


def test_shared_transaction(connection: Connection) -> None:
    """The transaction is the fixture's."""
    connection.execute(text("SELECT 1"))


def test_pool_without_a_reset() -> None:
    """The pool does not roll back."""
    connection = without_reset.raw_connection()  # leak
    connection.cursor().execute("SELECT relname FROM pg_class")
    connection.close()


def test_next() -> None:
    """It is reported once."""


def test_cursor_that_outlives_its_connection() -> None:
    """The connection went back to its pool before the statement."""
    cursor = returning.raw_connection().cursor()  # leak
    cursor.execute("SELECT relname FROM pg_class")


def test_somebody_elses() -> None:
    """A session of another process, idle in transaction, is none of ours."""
    with psycopg.connect(DSN, autocommit=True) as connection:
        others = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'somebody'")
        assert others.fetchone() == (1,)


without_reset = create_engine(PSYCOPG, pool_reset_on_return=None)
returning = create_engine(PSYCOPG)
