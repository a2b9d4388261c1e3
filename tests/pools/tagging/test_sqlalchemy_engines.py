import gc
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    NullPool,
    PoolProxiedConnection,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgwatch_sessions.pools import tag_statements, tags
from tests.pools.tagging.shown import line_of, shown
from tests.support.servers import Database

SELECT = text("SELECT count(*) FROM pg_class WHERE relname = :name")


@contextmanager
def engine_on(database: Database, driver: str = "psycopg", **options: Any) -> Iterator[Engine]:
    """Yield an engine whose connections are closed at the end."""
    engine = create_engine(make_url(database.dsn()).set(drivername=f"postgresql+{driver}"), **options)
    try:
        yield engine
    finally:
        engine.dispose()


def async_engine_on(database: Database, **options: Any) -> AsyncEngine:
    """Return an engine on asyncpg."""
    return create_async_engine(make_url(database.dsn()).set(drivername="postgresql+asyncpg"), **options)


@pytest.mark.parametrize("pool", [{}, {"poolclass": NullPool}, {"poolclass": StaticPool}], ids=repr)
def test_the_server_shows_who_borrowed(database: Database, pool: dict[str, Any]) -> None:
    """The line is that of the checkout, not that of the statement; with a Session it is that of the first query."""
    with engine_on(database, **pool) as engine:
        tag_statements(engine, application="orders")
        with tags(route="/orders/{id}"), engine.connect() as connection:
            connection.execute(SELECT, {"name": "secret"})
            here = line_of(test_the_server_shows_who_borrowed, "engine.connect()")
            (session,) = shown(database)
        assert session.application_name == "orders"
        assert session.text.startswith("/*application='orders',route='/orders/{id}',file='tests/pools/tagging/test_")
        assert session.statement.site == "/orders/{id}"
        assert (
            str(session.statement.code_line)
            == f"tests/pools/tagging/test_sqlalchemy_engines.py:{here} in test_the_server_shows_who_borrowed"
        )
        with Session(engine) as lazy:
            lazy.execute(SELECT, {"name": "secret"})
            here = line_of(test_the_server_shows_who_borrowed, "lazy.execute(SELECT")
            line = shown(database)[0].statement.code_line
            assert line is not None
            assert line.line == here


class LoggingPool(QueuePool):
    """A pool of the application's own."""

    def connect(self) -> PoolProxiedConnection:
        """Do what the pool does."""
        return super().connect()


def test_a_pool_of_the_application_is_not_the_borrower(database: Database) -> None:
    """It only lends the connection; the line is that of the code which asks for it."""
    with engine_on(database, poolclass=LoggingPool) as engine:
        tag_statements(engine, application="orders")
        with engine.connect() as connection:
            connection.execute(SELECT, {"name": "a"})
            line = shown(database)[0].statement.code_line
    assert line is not None
    assert line.function == "test_a_pool_of_the_application_is_not_the_borrower"


LIBRARY = """
from sqlalchemy import QueuePool

class ShopPool(QueuePool):
    def connect(self):
        return super().connect()

def borrow(engine):
    return engine.connect()
"""


def test_an_installed_application_is_found_too(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pool is not the borrower either. A caller from outside of it comes first, so there is none here."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "shop_service.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(packages)
    service = import_module("shop_service")
    with engine_on(database, poolclass=service.ShopPool) as engine, ThreadPoolExecutor(1) as threads:
        tag_statements(engine, application="orders")
        with threads.submit(service.borrow, engine).result() as connection:
            connection.execute(SELECT, {"name": "a"})
            assert str(shown(database)[0].statement.code_line) == "shop_service.py:9 in borrow"


async def read(session: AsyncSession) -> None:
    """Read in a function of its own: the greenlet of SQLAlchemy hides the frames of its caller."""
    await session.execute(SELECT, {"name": "pg_class"})


async def test_an_async_engine_shows_the_line_too(database: Database) -> None:
    """The synchronous part runs in a greenlet, where the stack ends."""
    engine = async_engine_on(database)
    tag_statements(engine, application="orders")
    async with AsyncSession(engine) as session:
        await read(session)
        (found,) = shown(database)
    await engine.dispose()
    assert found.application_name == "orders"
    assert str(found.statement.code_line).endswith(f":{line_of(read, 'await session')} in read")


def test_every_way_to_execute_is_tagged(database: Database) -> None:
    """Many rows, no parameters, a savepoint. BEGIN, COMMIT and ROLLBACK have no tag."""
    with engine_on(database) as engine:
        tag_statements(engine, application="orders")
        with engine.connect() as connection:
            connection.execute(text("CREATE TABLE numbers (n int)"))
            assert shown(database)[0].application == "orders"
            connection.execute(text("INSERT INTO numbers VALUES (:n)"), [{"n": 1}, {"n": 2}])
            assert shown(database)[0].application == "orders"
            with connection.begin_nested():
                assert shown(database)[0].application == "orders"
            connection.exec_driver_sql("/*+ SeqScan(numbers) */ SELECT * FROM numbers")
            assert shown(database)[0].text.startswith("/*+")
            connection.commit()
            assert shown(database)[0].text == "COMMIT"


def test_an_application_name_of_the_engine_stays(database: Database) -> None:
    """The engine's own setting is more specific."""
    with engine_on(database, connect_args={"application_name": "named"}) as engine:
        tag_statements(engine, application="orders")
        with engine.connect():
            assert [each.application_name for each in shown(database)] == ["named"]


def test_switched_off_by_the_environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements are as they were. The connections still have their name."""
    monkeypatch.setenv("PGWATCH_SESSIONS_TAGS", "off")
    with engine_on(database) as engine:
        tag_statements(engine, application="orders")
        with engine.connect() as connection:
            connection.execute(SELECT, {"name": "a"})
            (session,) = shown(database)
    assert session.application_name == "orders"
    assert session.text.startswith("SELECT")


def test_an_engine_is_tagged_once_and_closed_for_good(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A second application is refused with a warning, a second close does nothing."""
    with engine_on(database) as engine:
        handle = tag_statements(engine, application="orders")
        assert tag_statements(engine, application="orders") is handle
        assert tag_statements(engine.execution_options(logging_token="a"), application="orders") is handle
        assert not caplog.records
        assert tag_statements(engine, application="billing") is handle
        assert "is tagged as orders already" in caplog.text
        with engine.connect() as connection:
            connection.execute(SELECT, {"name": "a"})
            assert shown(database)[0].text.count("/*") == 1
        handle.close()
        handle.close()
        with engine.connect() as connection:
            connection.execute(SELECT, {"name": "a"})
            assert shown(database)[0].text.startswith("SELECT")
        assert tag_statements(engine, application="billing").application == "billing"


def test_a_leaked_connection_is_still_collected(database: Database) -> None:
    """A tag keeps nothing alive: neither a frame nor a connection."""
    with engine_on(database) as engine:
        tag_statements(engine, application="orders")

        def forget() -> None:
            engine.connect().execute(SELECT, {"name": "a"})

        forget()
        gc.collect()
        assert engine.pool.status().endswith("Current Checked out connections: 0")


def test_an_error_of_ours_breaks_no_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and tagging ends."""
    monkeypatch.setattr("pgwatch_sessions.pools.tagging.tagger.comment_of", lambda _: 1 / 0)
    with engine_on(database) as engine:
        tag_statements(engine, application="orders")
        for _ in range(2):
            with engine.connect() as connection:
                assert connection.execute(SELECT, {"name": "pg_class"}).scalar() == 1
    assert [record.name for record in caplog.records] == ["pgwatch_sessions.pools"]


def test_other_listeners_still_hear_every_statement(database: Database) -> None:
    """Their view is that of the application: they get the statement without the tag."""
    heard: list[str] = []
    with engine_on(database) as engine:
        tag_statements(engine, application="orders")
        event.listen(engine, "after_cursor_execute", lambda *arguments: heard.append(arguments[2]))
        with engine.connect() as connection:
            connection.execute(SELECT, {"name": "a"})
    assert [each.split()[0] for each in heard] == ["SELECT"]


async def _query_many(engine: AsyncEngine, routes: int) -> None:
    for number in range(routes):
        with tags(route=f"/{number}"):
            async with engine.connect() as connection:
                await connection.execute(SELECT, {"name": "a"})


async def test_more_texts_than_the_driver_keeps_prepared_are_told_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the number and the setting that cures it."""
    engine = async_engine_on(database, connect_args={"prepared_statement_cache_size": 10})
    handle = tag_statements(engine, application="orders")
    with caplog.at_level(logging.WARNING):
        await _query_many(engine, 4)  # SQLAlchemy asks a new server for its version and settings, too
        assert not caplog.records
        await _query_many(engine, 12)
        await _query_many(engine, 12)
    await engine.dispose()
    assert 12 < handle.texts < 20
    (record,) = caplog.records
    assert "the 10 prepared statements that the driver keeps" in record.getMessage()
    assert "connect_args={'prepared_statement_cache_size': 50}" in record.getMessage()


async def test_a_sample_bounds_the_texts_and_still_tags_each_route(database: Database) -> None:
    """The first borrow of a route is tagged, so a rare route is never left out."""
    engine = async_engine_on(database)
    tag_statements(engine, application="orders", sample_every=3)
    tagged: list[bool] = []
    for _ in range(4):
        with tags(route="/often"):
            async with engine.connect() as connection:
                await connection.execute(SELECT, {"name": "a"})
                tagged.append("route" in shown(database)[0].tags)
    with tags(route="/rare"):
        async with engine.connect() as connection:
            await connection.execute(SELECT, {"name": "a"})
            tagged.append("route" in shown(database)[0].tags)
    await engine.dispose()
    assert tagged == [True, False, False, True, True]


def test_an_engine_on_another_database_is_left_as_it_is() -> None:
    """An application may run its tests on SQLite."""
    heard: list[str] = []
    engine = create_engine("sqlite://")
    tag_statements(engine, application="orders").close()
    tag_statements(engine, application="orders")
    with engine.connect() as connection:
        connection.connection.driver_connection.set_trace_callback(heard.append)  # type: ignore[union-attr]
        assert connection.execute(text("SELECT 7")).scalar() == 7
    engine.dispose()
    assert heard[0] == "SELECT 7"


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_sample_of_none_is_refused(database: Database, wrong: int) -> None:
    """Programmers see it when the application starts."""
    with engine_on(database) as engine, pytest.raises(ValueError, match="sample_every must be at least 1"):
        tag_statements(engine, application="orders", sample_every=wrong)
