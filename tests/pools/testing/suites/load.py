"""What `assert_no_leaks` finds, and what it says. Run by a test, because watching lasts until the process ends."""

import asyncio
import gc
import os
import re
import threading
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgwatch_sessions.pools.testing import assert_no_leaks

DSN = os.environ["TEST_DSN"]
engine = create_engine(DSN.replace("postgresql:", "postgresql+psycopg:"), pool_size=20)
KEPT: list[Any] = []
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


def read() -> None:
    """Return the connection."""
    with Session(engine) as session:
        session.execute(text("SELECT 1"))


def leak() -> None:
    """Keep the connection."""
    KEPT.append(psycopg.connect(DSN))


def refused(call: Any, **numbers: int) -> str:
    """Return the text of the error."""
    with pytest.raises(AssertionError) as error:
        assert_no_leaks(call, **numbers)
    return str(error.value)


def test_returned() -> None:
    """Calls from threads, which begin at the same time."""
    together = threading.Barrier(5)

    def call() -> None:
        together.wait(timeout=10)
        read()

    assert_no_leaks(call, times=20, concurrency=5)


def test_left_out() -> None:
    """Every second call leaks; the line is named once, with the number."""
    calls = iter(range(10))
    error = refused(lambda: leak() if next(calls) % 2 else read(), times=10, concurrency=1)
    lines = error.splitlines()
    assert lines[0] == "10 calls left 5 connections out:"
    assert re.fullmatch(r"  psycopg connection, opened at test_load.py:\d+ in leak \(5 times\)", lines[1])


def test_what_was_out_before_does_not_count() -> None:
    """Nor is it reported twice."""
    leak()
    assert_no_leaks(read, times=2)
    refused(leak, times=2)
    assert_no_leaks(read, times=2)


def test_the_collector_makes_no_difference() -> None:
    """A session that only the collector returns is a leak."""

    def forget() -> None:
        Session(engine).execute(text("SELECT 1"))
        gc.collect()

    assert "the garbage collector returned it, the code did not (3 times)" in refused(forget, times=3, concurrency=1)


def test_errors() -> None:
    """Calls that raise do not end the run; a connection of a failing call is found first."""

    def fail() -> None:
        read()
        raise LookupError("no such order")

    def fail_and_leak() -> None:
        Session(engine).execute(text("SELECT 1"))
        raise LookupError("no such order")

    error = refused(fail, times=7, concurrency=2)
    assert error.startswith("7 of 7 calls raised, and left no connection out. The first error:\nTraceback ")
    assert error.endswith("LookupError: no such order\n")
    assert refused(fail_and_leak, times=3, concurrency=2).startswith("3 calls left 3 connections out:")


async def test_async() -> None:
    """Tasks of the running loop. A task of the application that ends a moment later may return its connection."""
    tasks = []

    async def later() -> None:
        async with await psycopg.AsyncConnection.connect(DSN):
            await asyncio.sleep(0.1)

    async def call() -> None:
        tasks.append(asyncio.create_task(later()))
        await asyncio.sleep(0.05)

    await assert_no_leaks(call, times=6, concurrency=3)
    async_engine = create_async_engine(DSN.replace("postgresql:", "postgresql+asyncpg:"))

    async def forget() -> None:
        session = AsyncSession(async_engine)
        await session.execute(text("SELECT 1"))
        KEPT.append(session)

    with pytest.raises(AssertionError, match=r"^4 calls left 4 connections out:\n  SQLAlchemy .* in forget"):
        await assert_no_leaks(forget, times=4, concurrency=2)


def test_wrong_use() -> None:
    """The error says what to do."""

    async def call() -> None: ...

    for concurrency in (1, 2):
        with pytest.raises(TypeError, match="give an async function, and await the result"):
            assert_no_leaks(lambda: call(), times=2, concurrency=concurrency)  # noqa: PLW0108  not an async function itself
    with pytest.raises(ValueError, match="times and concurrency must be at least 1, not 0 and 10"):
        assert_no_leaks(read, times=0)
