"""The fixture that many suites have. It passes although the test leaks."""

import os
from collections.abc import Iterator

import orders
import pytest
from sqlalchemy import Engine, create_engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Compare how many connections are out before and after a test, of an engine that the fixture made itself."""
    engine = create_engine(os.environ["DATABASE_URL"])
    before = engine.pool.checkedout()
    yield engine
    assert engine.pool.checkedout() == before


def test_no_such_order(engine: Engine) -> None:
    """The application has an engine of its own, and that one loses a connection."""
    assert engine is not orders.engine
    assert orders.read_order(0) is None
