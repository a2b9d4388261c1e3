"""Two fixtures that compare counts. The first misses a leak; the second fails although nothing leaks."""

import os
from collections.abc import Iterator

import orders
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Compare how many connections are out before and after a test, of an engine that the fixture makes itself."""
    engine = create_engine(os.environ["DATABASE_URL"])
    before = engine.pool.checkedout()
    yield engine
    assert engine.pool.checkedout() == before


def test_leak_that_is_missed(engine: Engine) -> None:
    """It passes: the application has an engine of its own, and that one loses a connection."""
    assert engine is not orders.engine
    assert orders.read_order(0) is None


@pytest.fixture
def session() -> Iterator[Session]:
    """Close the session after the test."""
    with Session(orders.engine) as session:
        yield session


@pytest.fixture
def counted() -> Iterator[None]:
    """Compare the counts of the application's engine."""
    before = orders.engine.pool.checkedout()
    yield
    assert orders.engine.pool.checkedout() == before


def test_false_alarm(session: Session, counted: None) -> None:
    """It fails: fixtures end in reverse order, so `counted` looks before `session` returns its connection."""
    session.execute(text("SELECT 1"))
