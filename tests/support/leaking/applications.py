"""Small web applications as people write them. `/mistake` is where they leak; the other routes are as they should be.

What a mistake leaks is kept in a stack for the application's life, as a forgotten list or a kept exception would: no
garbage collector returns it. The application's end closes it, so that nothing is left to be complained of.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from itertools import cycle
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgwatch_sessions.demo.orders import tagged
from pgwatch_sessions.demo.service import tag_statements

PoolMistake = Callable[[asyncpg.Pool, AsyncExitStack], Awaitable[None]]
AsyncMistake = Callable[[AsyncEngine, AsyncExitStack], Awaitable[None]]
Mistake = Callable[[Engine, ExitStack], None]

NAME = "shop"
ORDER = text("SELECT cents FROM orders WHERE id = :id")
INVOICE = text("SELECT paid FROM invoices WHERE id = :id")
ORDER_SQL, INVOICE_SQL = "SELECT cents FROM orders WHERE id = $1", "SELECT paid FROM invoices WHERE id = $1"


def async_engine(
    dsn: str, *, size: int = 5, overflow: int = 20, isolation_level: str | None = None, **settings: str
) -> AsyncEngine:
    """Make an engine on asyncpg; `settings` are those of its sessions."""
    return create_async_engine(
        make_url(dsn).set(drivername="postgresql+asyncpg"),
        pool_size=size,
        max_overflow=overflow,
        isolation_level=isolation_level,
        connect_args={"server_settings": settings},
    )


def tagging_engine(dsn: str) -> AsyncEngine:
    """Make an engine without application_name whose statements carry the tags of the request."""
    engine = async_engine(dsn)
    event.listen(engine.sync_engine, "before_cursor_execute", tagged, retval=True)
    return engine


def sync_engine(dsn: str) -> Engine:
    """Make an engine on psycopg."""
    url = make_url(dsn).set(drivername="postgresql+psycopg")
    return create_engine(url, pool_size=5, max_overflow=20, connect_args={"application_name": NAME})


async def no_mistake(*_: object) -> None:
    """Do nothing."""


def no_sync_mistake(*_: object) -> None:
    """Do nothing."""


def on_engine(engine: AsyncEngine, mistake: AsyncMistake = no_mistake) -> FastAPI:
    """Build an application on SQLAlchemy and asyncpg."""
    kept = AsyncExitStack()
    kept.push_async_callback(engine.dispose)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with kept:
            yield

    app = FastAPI(title=NAME, lifespan=lifespan, dependencies=[Depends(tag_statements)])
    app.include_router(_routes(engine))

    @app.get("/mistake")
    async def make_mistake() -> None:
        await mistake(engine, kept)

    return app


def _routes(engine: AsyncEngine) -> APIRouter:
    async def session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as new:
            yield new

    routes = APIRouter()

    @routes.get("/orders")
    async def orders(session: Annotated[AsyncSession, Depends(session)]) -> None:
        await session.execute(ORDER, {"id": 1})
        await session.execute(text("UPDATE stock SET pieces = pieces - 1 WHERE id = floor(1 + 10 * random())"))
        await session.commit()

    @routes.get("/report")
    async def report(session: Annotated[AsyncSession, Depends(session)]) -> None:
        for _ in range(3):
            await session.execute(text("SELECT pg_sleep(0.04) FROM orders LIMIT 1"))

    @routes.get("/stream")
    async def stream(session: Annotated[AsyncSession, Depends(session)], seconds: float) -> StreamingResponse:
        await session.execute(ORDER, {"id": 1})

        async def lines() -> AsyncIterator[str]:
            for _ in range(10):
                yield "a line\n"
                await asyncio.sleep(seconds / 10)

        return StreamingResponse(lines())

    moments = cycle(range(30))

    @routes.get("/cancelled")
    async def cancelled() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001 * next(moments)), AsyncSession(engine) as new:
                for order in range(100):
                    await new.execute(ORDER, {"id": order})

    return routes


def on_sync_engine(engine: Engine, mistake: Mistake = no_sync_mistake) -> FastAPI:
    """Build an application of plain functions, in threads, on SQLAlchemy and psycopg."""
    kept = ExitStack()
    kept.callback(engine.dispose)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with kept:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders")
    def orders() -> None:
        with Session(engine) as session:
            session.execute(ORDER, {"id": 1})

    @app.get("/mistake")
    def make_mistake() -> None:
        mistake(engine, kept)

    return app


def on_pool(dsn: str, mistake: PoolMistake = no_mistake) -> FastAPI:
    """Build an application on asyncpg and its own pool."""
    pools: list[asyncpg.Pool] = []
    kept = AsyncExitStack()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        settings = {"application_name": NAME}
        async with asyncpg.create_pool(dsn, min_size=5, max_size=25, server_settings=settings) as pool, kept:
            pools.append(pool)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders")
    async def orders() -> None:
        async with pools[0].acquire() as connection, connection.transaction():
            await connection.fetch(ORDER_SQL, 1)

    @app.get("/mistake")
    async def make_mistake() -> None:
        await mistake(pools[0], kept)

    return app


def connecting(dsn: str) -> FastAPI:
    """Build an application that connects for each request; its mistake is to keep the connection."""
    kept = AsyncExitStack()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with kept:
            yield

    async def connected(sql: str) -> asyncpg.Connection:
        connection = await asyncpg.connect(dsn, server_settings={"application_name": NAME})
        await connection.fetch(sql, 1)
        return connection

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders")
    async def orders() -> None:
        await (await connected(ORDER_SQL)).close()

    @app.get("/mistake")
    async def make_mistake() -> None:
        kept.push_async_callback((await connected(INVOICE_SQL)).close)

    return app
