"""From the line that borrows a connection in an application to every output that names it."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, make_url, text

from pgwatch_sessions.pools import tag_statements, tags
from tests.support.programs import finished
from tests.support.servers import Database

LIMITS = ("--hold-limit", "1s", "--interval", "600ms")


def borrow(engine: Engine) -> Connection:
    """Take a connection and use it."""
    connection = engine.connect()
    connection.execute(text("SELECT count(*) FROM pg_class WHERE relname = :name"), {"name": "s3cret"})
    return connection


@contextmanager
def leaking(database: Database) -> Iterator[str]:
    """Hold a connection in a request; yield the line that borrowed it, as it is shown."""
    engine = create_engine(make_url(database.dsn()).set(drivername="postgresql+psycopg"))
    tag_statements(engine, application="orders-api")
    with tags(route="/orders/{id}"), closing(borrow(engine)):
        yield f"tests/test_line_of_code.py:{borrow.__code__.co_firstlineno + 2} in borrow"
    engine.dispose()


def test_check_names_the_line_that_borrowed(database: Database) -> None:
    """In the sentence, in the advice and in JSON."""
    of_database = ("check", "--dsn", database.dsn(), "--database", database.name, *LIMITS)
    with leaking(database) as line:
        ended = finished(*of_database)
        (server,) = json.loads(finished(*of_database, "--format", "json").stdout)["servers"]
    (finding,) = server["findings"]
    assert f": 1 session idle in transaction at /orders/{{id}} ({line}) for " in ended.stdout
    assert f"the route `/orders/{{id}}` ({line})" in " ".join(ended.stdout.split())
    assert [each["text"] for each in finding["code_lines"]] == [line]
    assert finding["site"] == "/orders/{id}"
    assert "s3cret" not in ended.stdout


def test_a_recording_keeps_the_line(database: Database, tmp_path: Path) -> None:
    """So a replay names it too."""
    file = tmp_path / "polls.jsonl"
    with leaking(database) as line:
        done = finished("record", "--dsn", database.dsn(), "--out", str(file), "--interval", "600ms", "--count", "4")
    assert done.returncode == 0, done.stderr
    replayed = finished("replay", str(file), "--hold-limit", "1s", "--format", "json").stdout.splitlines()
    opened = [event for event in map(json.loads, replayed) if event["event"] == "leak_opened"]
    assert [each["text"] for event in opened for each in event["code_lines"]] == [line]
