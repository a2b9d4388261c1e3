import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

import pgwatch_sessions.pools.ledger
from pgwatch_sessions.pools import PoolHandle, handles, instrument, uninstrument
from tests.support.servers import Database

_LOADED = """
import sys
before = set(sys.modules)
import pgwatch_sessions.pools
print(*sorted({name for name in set(sys.modules) - before}))
"""


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """Return an engine that is not watched."""
    engine = create_engine(database.dsn().replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    uninstrument(engine)
    engine.dispose()


@pytest.mark.slow
def test_importing_it_imports_only_the_standard_library() -> None:
    """It is imported by every process of an application, which need not have the daemon's libraries."""
    ran = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)

    loaded = ran.stdout.split()
    ours = [name for name in loaded if name.startswith("pgwatch_sessions")]
    others = {name.partition(".")[0] for name in loaded} - {"pgwatch_sessions"}
    assert {name for name in others if not name.startswith("_sysconfigdata_")} <= sys.stdlib_module_names
    assert [name for name in ours if not name.startswith("pgwatch_sessions.pools")] == ["pgwatch_sessions"]


def test_an_engine_is_instrumented_once(engine: Engine) -> None:
    """The second call returns the first handle, whose options stay."""
    handle = instrument(engine, name="orders", leak_threshold=30)

    assert instrument(engine, name="other") is handle
    assert (handle.name, handle.leak_threshold) == ("orders", 30)
    assert handle in handles()


def test_a_pool_has_the_name_of_its_server_and_database(engine: Engine, database: Database) -> None:
    """The user and the password are not shown."""
    assert instrument(engine).name == f"127.0.0.1:{database.server.port}/{database.name}"


def test_a_name_that_is_taken_gets_a_number(engine: Engine) -> None:
    """Two series of the same labels would make the scrape fail."""
    other = create_engine(engine.url)
    first, second = instrument(engine, name="orders"), instrument(other, name="orders")
    assert (first.name, second.name) == ("orders", "orders-2")
    first.close()
    second.close()
    assert instrument(other, name="orders").name == "orders"
    uninstrument(other)


@pytest.mark.parametrize("target", [object(), "postgresql://localhost", None])
def test_what_is_no_pool_is_refused_with_what_would_be_one(target: Any) -> None:
    """Everything else works, or is said."""
    with pytest.raises(
        TypeError, match=r"use a SQLAlchemy Engine or AsyncEngine, an asyncpg.Pool, or a pool of psycopg"
    ):
        instrument(target)


def test_a_session_is_no_engine(engine: Engine) -> None:
    """It is of SQLAlchemy, too."""
    with engine.connect() as connection, pytest.raises(TypeError, match=r"cannot instrument a sqlalchemy.*Connection"):
        instrument(connection)


@pytest.mark.parametrize(
    ("options", "message"), [({"capture": "all"}, 'use "site"'), ({"leak_threshold": 0}, "seconds above 0")]
)
def test_a_wrong_option_is_refused_with_the_right_ones(engine: Engine, options: dict[str, Any], message: str) -> None:
    """A misspelled option would be found out only when a connection leaks."""
    with pytest.raises(ValueError, match=message):
        instrument(engine, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("sqlalchemy", "pgwatch-sessions[sqlalchemy]"),
        ("asyncpg", "pgwatch-sessions"),
        ("psycopg_pool", "pgwatch-sessions[psycopg]"),
    ],
)
def test_a_library_that_is_too_old_is_named_with_what_to_install(library: str, package: str, tmp_path: Path) -> None:
    """SQLAlchemy 1.4 has engines, but not all that is imported here."""
    (tmp_path / f"{library}.py").write_text("class Pool: ...\n")
    program = f"import {library}\nfrom pgwatch_sessions.pools import instrument\ninstrument({library}.Pool())"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert f"ImportError: cannot watch pools of this {library} (" in ran.stderr
    assert ran.stderr.endswith(f"): pip install '{package}'\n")


def test_an_error_of_ours_does_not_reach_the_application(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and the pool is not watched any more."""
    handle = instrument(engine)

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(pgwatch_sessions.pools.ledger.Ledger, "borrow", broken)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "RuntimeError: broken" in caplog.text
    assert (handle.watching, handle in handles()) == (False, False)


def test_a_handle_that_is_not_kept_goes_on(engine: Engine) -> None:
    """The pool is watched for as long as it exists."""
    instrument(engine, name="kept by its pool")
    with engine.connect():
        (handle,) = [handle for handle in handles() if handle.name == "kept by its pool"]
        assert isinstance(handle, PoolHandle)
        assert handle.snapshot().used == 1
