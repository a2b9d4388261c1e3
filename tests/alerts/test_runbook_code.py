"""The mended code of DatabaseConnectionLeak, run as it stands on the page, with one connection for everybody.

Whoever keeps that one while something else goes on, or does not give it back, makes the next one wait in vain.
"""

import ast
import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import FunctionType, SimpleNamespace
from typing import Annotated, Any

import asyncpg
import fastapi.responses
import httpx
import psycopg
import sqlalchemy.exc
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import create_engine, insert, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.alerts.runbooks import blocks
from tests.support.servers import Database
from tests.support.waiting import until

_ONE = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 2}
_LEFT = "SELECT FROM pg_stat_activity WHERE application_name = 'page' AND state LIKE 'idle in transaction%'"
#: What the examples import, as people do.
_LIBRARIES = {
    **vars(fastapi.responses),
    **vars(fastapi),
    **vars(sqlalchemy.exc),
    **vars(sqlalchemy),
    "Annotated": Annotated,
    "asyncio": asyncio,
}


class Base(DeclarativeBase):
    """The shop's tables."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(default="a@b.example")
    total: Mapped[int] = mapped_column(default=1)
    receipt: Mapped[str | None]


class Customer(Base):
    """A customer, whose address is known once."""

    __tablename__ = "customers"
    email: Mapped[str] = mapped_column(primary_key=True)


class NewOrder(BaseModel):
    """What is posted."""

    email: str


def mended() -> Iterator[str]:
    """Yield the examples of the page that mend, in its order."""
    for page, code in blocks("python"):
        if page == "DatabaseConnectionLeak" and code.startswith("# after"):
            yield code


@asynccontextmanager
async def shop(database: Database) -> AsyncIterator[tuple[dict[str, Any], list[str]]]:
    """Yield all that the examples take for granted, and what they did."""
    dsn = database.dsn(application_name="page")
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), **_ONE)
    named = {"server_settings": {"application_name": "page"}}
    url = database.dsn().replace("postgresql:", "postgresql+asyncpg:")
    async_engine = create_async_engine(url, connect_args=named, **_ONE)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(insert(Order), [{} for _ in range(501)])
        session.execute(text("CREATE TABLE stock AS SELECT 1 AS id, 9 AS n"))
        session.execute(text("CREATE VIEW reports AS SELECT 'sales' AS name"))
        session.execute(text("ALTER TABLE orders ADD open bool DEFAULT true"))
        session.execute(text("CREATE MATERIALIZED VIEW sales AS SELECT 1"))
        session.commit()
    done = []

    def nothing_is_held(what: str) -> None:
        assert engine.pool.checkedout() == async_engine.pool.checkedout() == 0, what  # type: ignore[attr-defined]  # of QueuePool
        done.append(what)

    async def charge(total: int, idempotency_key: str) -> str:
        nothing_is_held(f"{idempotency_key} {total}")
        return "paid"

    def as_csv(row: Order) -> str:
        if row.id % 500 == 1:
            nothing_is_held(f"row {row.id}")
        return f"{row.id}\n"

    def save(session: Session, order: NewOrder) -> Order:
        saved = Order(email=order.email)
        session.add(saved)
        session.commit()
        return saved

    yield (
        {
            **_LIBRARIES, **globals(), "engine": engine, "app": FastAPI(), "DSN": dsn, "as_csv": as_csv, "save": save,
            "async_sessions": async_sessionmaker(async_engine, class_=AsyncSession),
            "payments": SimpleNamespace(charge=charge), "mail": lambda to: nothing_is_held(f"mail to {to}"),
            "logger": logging.getLogger("shop"), "email": "c@d.example", "item": 1,
        },
        done,
    )  # fmt: skip
    engine.dispose()
    await async_engine.dispose()


async def run(code: str, names: dict[str, Any]) -> None:
    """Run an example, which may add names."""
    function = FunctionType(compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    for _ in range(2):  # what was kept the first time is missing the second
        result = function()
        if inspect.isawaitable(result):
            await result


async def ask(app: FastAPI, *requests: tuple[str, str]) -> list[int]:
    """Send the requests, each twice, and return the answers' codes."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        twice = [each for each in requests for _ in range(2)]
        return [(await client.request(*each, json={"email": "e@f.example"})).status_code for each in twice]


async def test_the_mended_code_holds_nothing_while_others_work_and_leaves_nothing(database: Database) -> None:
    """Routes, background tasks, streams, external calls, errors and pools of the page."""
    async with (
        shop(database) as (names, done),
        asyncpg.create_pool(database.dsn(application_name="page"), min_size=1, max_size=1) as pool,
    ):
        names["pool"], first = pool, names["app"]
        for code in mended():
            async with pool.acquire(timeout=2) if "pool" not in code else contextlib.nullcontext() as connection:
                with Session(names["engine"]) if "begin_nested" in code else contextlib.nullcontext() as session:
                    names |= {"connection": connection, "session": session}
                    await run(code, names)
        orders = ("GET", "/orders/1"), ("POST", "/orders/1/payment"), ("POST", "/orders"), ("GET", "/export")
        assert await ask(first, *orders) == [200] * 8
        assert names["app"] is not first, "the page's own, with a lifespan"
        assert await ask(names["app"], ("GET", "/reports")) == [200] * 2
        with psycopg.connect(database.dsn(), autocommit=True) as person:
            until(lambda: not person.execute(_LEFT).fetchall())
    assert set(done) == {"mail to e@f.example", "order-1 1", "row 1", "row 501"}
