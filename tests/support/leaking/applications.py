"""Small web applications as people write them. The route `/mistake` leaks; the other routes are correct.

Leaked objects are stored in an exit stack, as a list or an exception would keep them in a real application. So the
garbage collector does not return them. The stack closes them when the application ends, so that tests leave nothing
behind.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from itertools import cycle
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pgwatch_sessions.pools import TagMiddleware, tag_statements

PoolMistake = Callable[[asyncpg.Pool, AsyncExitStack], Awaitable[None]]
AsyncMistake = Callable[[AsyncEngine, AsyncExitStack], Awaitable[None]]
SyncMistake = Callable[[Engine, ExitStack], None]

NAME = "shop"
ORDER = text("SELECT cents FROM orders WHERE id = :id")
INVOICE = text("SELECT paid FROM invoices WHERE id = :id")
ORDER_SQL, INVOICE_SQL = "SELECT cents FROM orders WHERE id = $1", "SELECT paid FROM invoices WHERE id = $1"


def async_engine(
    dsn: str, *, size: int = 5, overflow: int = 20, isolation_level: str | None = None, **settings: str
) -> AsyncEngine:
    """Create an engine on asyncpg. `settings` are settings of its sessions."""
    return create_async_engine(
        make_url(dsn).set(drivername="postgresql+asyncpg"),
        pool_size=size,
        max_overflow=overflow,
        isolation_level=isolation_level,
        connect_args={"server_settings": settings},
    )


def tagging_engine(dsn: str) -> AsyncEngine:
    """Create an engine without application_name, whose statements have tags of the request."""
    engine = async_engine(dsn, application_name="")
    tag_statements(engine, application=NAME)
    return engine


def sync_engine(dsn: str) -> Engine:
    """Create an engine on psycopg."""
    url = make_url(dsn).set(drivername="postgresql+psycopg")
    return create_engine(url, pool_size=5, max_overflow=20, connect_args={"application_name": NAME})


async def do_nothing(*_: object) -> None:
    """Do nothing."""


def do_nothing_sync(*_: object) -> None:
    """Do nothing."""


def app_on_async_engine(engine: AsyncEngine, mistake: AsyncMistake = do_nothing) -> FastAPI:
    """Return an application on SQLAlchemy and asyncpg."""
    leaked = AsyncExitStack()
    leaked.push_async_callback(engine.dispose)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with leaked:
            yield

    app = FastAPI(title=NAME, lifespan=lifespan)
    app.add_middleware(TagMiddleware)
    app.include_router(_routes(engine))

    @app.get("/mistake")
    async def make_mistake() -> None:
        await mistake(engine, leaked)

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

    milliseconds = cycle(range(30))

    @routes.get("/cancelled")
    async def cancelled() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001 * next(milliseconds)), AsyncSession(engine) as new:
                for order in range(100):
                    await new.execute(ORDER, {"id": order})

    return routes


def app_on_sync_engine(engine: Engine, mistake: SyncMistake = do_nothing_sync) -> FastAPI:
    """Return an application with sync routes (in threads) on SQLAlchemy and psycopg."""
    leaked = ExitStack()
    leaked.callback(engine.dispose)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with leaked:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders")
    def orders() -> None:
        with Session(engine) as session:
            session.execute(ORDER, {"id": 1})

    @app.get("/mistake")
    def make_mistake() -> None:
        mistake(engine, leaked)

    return app


def app_on_asyncpg_pool(dsn: str, mistake: PoolMistake = do_nothing) -> FastAPI:
    """Return an application on asyncpg's own pool."""
    pools: list[asyncpg.Pool] = []
    leaked = AsyncExitStack()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        settings = {"application_name": NAME}
        async with asyncpg.create_pool(dsn, min_size=5, max_size=25, server_settings=settings) as pool, leaked:
            pools.append(pool)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders")
    async def orders() -> None:
        async with pools[0].acquire() as connection, connection.transaction():
            await connection.fetch(ORDER_SQL, 1)

    @app.get("/mistake")
    async def make_mistake() -> None:
        await mistake(pools[0], leaked)

    return app


def app_connecting_per_request(dsn: str) -> FastAPI:
    """Return an application that opens a connection for each request. Its mistake is not to close it."""
    leaked = AsyncExitStack()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with leaked:
            yield

    async def connect_and_fetch(sql: str) -> asyncpg.Connection:
        connection = await asyncpg.connect(dsn, server_settings={"application_name": NAME})
        await connection.fetch(sql, 1)
        return connection

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders")
    async def orders() -> None:
        await (await connect_and_fetch(ORDER_SQL)).close()

    @app.get("/mistake")
    async def make_mistake() -> None:
        leaked.push_async_callback((await connect_and_fetch(INVOICE_SQL)).close)

    return app
