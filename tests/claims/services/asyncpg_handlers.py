"""Handlers on asyncpg that do not give their connection back, and the one that does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI

from tests.claims.services.serving import Options, serve

_ORDERS = "SELECT total FROM orders WHERE id = $1"


def application_of(options: Options) -> FastAPI:
    """Return the application; the path chooses the handler."""
    kept: list[asyncpg.Connection] = []
    pools: list[asyncpg.Pool] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        pools.append(asyncpg.create_pool(options.dsn, min_size=0, max_size=options.size + options.overflow))
        await pools[0]
        yield
        pools[0].terminate()

    app = FastAPI(lifespan=lifespan)

    @app.get("/connect-early-return")
    async def connect_early_return() -> list[int]:
        connection = await asyncpg.connect(options.dsn)
        rows = await connection.fetch(_ORDERS, 0)
        if not rows:
            return []
        await connection.close()
        return [row["total"] for row in rows]

    @app.get("/connect-exception")
    async def connect_exception() -> None:
        connection = await asyncpg.connect(options.dsn)
        await connection.fetch(_ORDERS, 1)
        raise RuntimeError

    @app.get("/connect-kept")
    async def connect_kept() -> None:
        connection = await asyncpg.connect(options.dsn)
        kept.append(connection)
        await connection.fetch(_ORDERS, 1)

    @app.get("/acquire")
    async def acquire() -> None:
        connection = await pools[0].acquire(timeout=1)
        await connection.fetch(_ORDERS, 1)

    @app.get("/fixed")
    async def fixed() -> None:
        async with pools[0].acquire() as connection:
            await connection.fetch(_ORDERS, 1)

    return app


if __name__ == "__main__":
    serve(application_of)
