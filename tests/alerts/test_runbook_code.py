"""Runs the fixed code of the runbook DatabaseConnectionLeak as it is printed there.

Each pool has a single connection. If an example holds it during other work, or does not return it, the next example
times out waiting for it.
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

from tests.support.runbooks import blocks
from tests.support.servers import Database
from tests.support.waiting import until

_SINGLE_CONNECTION = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 2}
_IDLE_IN_TRANSACTION = (
    "SELECT FROM pg_stat_activity WHERE application_name = 'page' AND state LIKE 'idle in transaction%'"
)
#: The names that the examples use without an import.
_LIBRARIES = {
    **vars(fastapi.responses),
    **vars(fastapi),
    **vars(sqlalchemy.exc),
    **vars(sqlalchemy),
    "Annotated": Annotated,
    "asyncio": asyncio,
}


class Base(DeclarativeBase):
    """Base class of the shop's tables."""


class Order(Base):
    """A row of `orders`."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(default="a@b.example")
    total: Mapped[int] = mapped_column(default=1)
    receipt: Mapped[str | None]


class Customer(Base):
    """A customer; the e-mail address is unique."""

    __tablename__ = "customers"
    email: Mapped[str] = mapped_column(primary_key=True)


class NewOrder(BaseModel):
    """The body of a POST request."""

    email: str


def fixed_examples() -> Iterator[str]:
    """Yield the `# after` examples of the page in order, without those that need Django or psycopg_pool."""
    for page, code in blocks("python"):
        if page == "DatabaseConnectionLeak" and code.startswith("# after") and not code.startswith("# after, with "):
            yield code


@asynccontextmanager
async def shop(database: Database) -> AsyncIterator[tuple[dict[str, Any], list[str]]]:
    """Yield the names that the examples need, and a list of what they did."""
    dsn = database.dsn(application_name="page")
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), **_SINGLE_CONNECTION)
    connect_args = {"server_settings": {"application_name": "page"}}
    url = database.dsn().replace("postgresql:", "postgresql+asyncpg:")
    async_engine = create_async_engine(url, connect_args=connect_args, **_SINGLE_CONNECTION)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(insert(Order), [{} for _ in range(501)])
        session.execute(text("CREATE TABLE stock AS SELECT 1 AS id, 9 AS n"))
        session.execute(text("CREATE VIEW reports AS SELECT 'sales' AS name"))
        session.execute(text("ALTER TABLE orders ADD open bool DEFAULT true"))
        session.execute(text("CREATE MATERIALIZED VIEW sales AS SELECT 1"))
        session.commit()
    actions = []

    def record(action: str) -> None:
        """Record an action, and assert that no connection is checked out meanwhile."""
        assert engine.pool.checkedout() == async_engine.pool.checkedout() == 0, action  # type: ignore[attr-defined]  # of QueuePool
        actions.append(action)

    async def charge(total: int, idempotency_key: str) -> str:
        record(f"{idempotency_key} {total}")
        return "paid"

    def as_csv(row: Order) -> str:
        if row.id % 500 == 1:
            record(f"row {row.id}")
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
            "payments": SimpleNamespace(charge=charge), "mail": lambda to: record(f"mail to {to}"),
            "logger": logging.getLogger("shop"), "email": "c@d.example", "item": 1,
        },
        actions,
    )  # fmt: skip
    engine.dispose()
    await async_engine.dispose()


async def run(code: str, names: dict[str, Any]) -> None:
    """Run an example twice. It may define further names."""
    function = FunctionType(compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    for _ in range(2):  # if the first run keeps the only connection, the second cannot get it
        result = function()
        if inspect.isawaitable(result):
            await result


async def send(app: FastAPI, *requests: tuple[str, str]) -> list[int]:
    """Send each request twice, and return the status codes."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        twice = [each for each in requests for _ in range(2)]
        return [(await client.request(*each, json={"email": "e@f.example"})).status_code for each in twice]


async def test_the_fixed_code_holds_no_connection_during_other_work_and_leaks_none(database: Database) -> None:
    """The page's routes, background tasks, streams, external calls, error handling and pools."""
    async with (
        shop(database) as (names, actions),
        asyncpg.create_pool(database.dsn(application_name="page"), min_size=1, max_size=1) as pool,
    ):
        names["pool"], first_app = pool, names["app"]
        for code in fixed_examples():
            async with pool.acquire(timeout=2) if "pool" not in code else contextlib.nullcontext() as connection:
                with Session(names["engine"]) if "begin_nested" in code else contextlib.nullcontext() as session:
                    names |= {"connection": connection, "session": session}
                    await run(code, names)
        orders = ("GET", "/orders/1"), ("POST", "/orders/1/payment"), ("POST", "/orders"), ("GET", "/export")
        assert await send(first_app, *orders) == [200] * 8
        assert names["app"] is not first_app, "the example with a lifespan defines its own app"
        assert await send(names["app"], ("GET", "/reports")) == [200] * 2
        with psycopg.connect(database.dsn(), autocommit=True) as observer:
            until(lambda: not observer.execute(_IDLE_IN_TRANSACTION).fetchall())
    assert set(actions) == {"mail to e@f.example", "order-1 1", "row 1", "row 501"}
