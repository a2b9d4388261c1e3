import gc
import logging
import os
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from pgwatch_sessions.pools import instrument, uninstrument
from pgwatch_sessions.pools.ledger import Capture, current_tags
from tests.support.servers import Database
from tests.support.waiting import until

THRESHOLD = 0.05


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """Return an engine whose borrowers are logged after 50 ms."""
    engine = create_engine(database.dsn().replace("postgresql:", "postgresql+psycopg:"))
    instrument(engine, name="orders", leak_threshold=THRESHOLD, capture="stack")
    yield engine
    uninstrument(engine)
    engine.dispose()


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_borrower_is_logged_once_with_its_lines_and_once_more_when_it_returns(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names pool, age, file, line, function, tags and stack."""
    token = current_tags.set(lambda: {"route": "/orders/{id}"})

    def read_order() -> Session:
        session = Session(engine)
        session.execute(text("SELECT 1"))
        return session

    session = read_order()
    current_tags.reset(token)
    until(lambda: _lines(caplog))
    until(lambda: instrument(engine).borrowed(older_than=4 * THRESHOLD))
    (line,) = _lines(caplog)
    first, *stack = line.splitlines()
    assert first.startswith("connection leak? One of pool orders has been out for 0.")
    assert "borrowed at tests/pools/test_overdue.py:" in first
    assert first.endswith("in read_order (route=/orders/{id})")
    assert ["in read_order" in stack[0], "with_its_lines" in stack[1]] == [True, True]
    session.close()
    until(lambda: len(_lines(caplog)) == 2)
    assert "in read_order (route=/orders/{id}) came back after 0." in _lines(caplog)[1]
    fields = vars(caplog.records[-1])
    assert (fields["pool"], fields["tags"], fields["collected"]) == ("orders", {"route": "/orders/{id}"}, False)


def test_a_borrower_that_never_returns_is_told_from_one_that_is_late(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the garbage collector returned it: this is a leak that was lucky."""
    session = Session(engine)
    session.execute(text("SELECT 1"))
    until(lambda: _lines(caplog))
    del session
    gc.collect()
    until(lambda: len(_lines(caplog)) == 2)
    assert "was returned by the garbage collector, not by its borrower, after 0." in _lines(caplog)[1]


def test_a_quick_borrower_and_one_of_a_closed_handle_are_not_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the slow one of three is."""
    engine.connect().close()
    slow = engine.connect()
    until(lambda: _lines(caplog))
    uninstrument(engine)
    unwatched = engine.connect()
    slow.close()
    unwatched.close()
    assert len(_lines(caplog)) == 1


def test_the_child_of_a_fork_logs_its_own_borrowers(engine: Engine) -> None:
    """Threads do not survive a fork, and what the parent has borrowed is not the child's."""
    reading, writing = os.pipe()
    with engine.connect():
        pid = os.fork()
        if pid == 0:
            lines: list[str] = []
            handler = logging.Handler()
            handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
            logging.getLogger("pgwatch_sessions.pools").addHandler(handler)
            engine.dispose(close=False)
            with engine.connect():
                until(lambda: lines)
            os.write(writing, "\n".join(lines).encode())
            os._exit(0)
        os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        (line, *_) = pipe.read().splitlines()
    assert "in test_the_child_of_a_fork_logs_its_own_borrowers" in line


@pytest.mark.parametrize("capture", ["site", "off"])
def test_a_borrower_is_logged_with_what_was_kept_of_it(
    database: Database, caplog: pytest.LogCaptureFixture, capture: Capture
) -> None:
    """Without a line, the number of connections that are out too long is still worth a log line."""
    engine = create_engine(database.dsn().replace("postgresql:", "postgresql+psycopg:"))
    instrument(engine, name="orders", leak_threshold=THRESHOLD, capture=capture)
    with engine.connect():
        until(lambda: _lines(caplog))
    uninstrument(engine)
    engine.dispose()
    wanted = "an unknown line" if capture == "off" else "in test_a_borrower_is_logged_with_what_was_kept_of_it"
    assert _lines(caplog)[0].endswith(wanted)
