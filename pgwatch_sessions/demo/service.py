"""A small order service that forgets to close a session: the common mistake and its fix, side by side.

    ORDERS_DSN=postgresql://… python -m pgwatch_sessions.demo.service --port 8080

`GET /orders?customer=7` reads an invalid row and leaks one connection per request; all other customers and routes are
healthy. With `ORDERS_FIXED=1`, or after `POST /fix`, the same route has the fix. `ORDERS_POOL_SIZE`,
`ORDERS_MAX_OVERFLOW` and `ORDERS_POOL_TIMEOUT` configure the pool; `GET /pool` shows its numbers, and `GET /metrics`
shows them to Prometheus.
"""

import argparse
import gc
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from prometheus_client import REGISTRY, make_asgi_app
from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from pgwatch_sessions.demo.orders import Customer, MeasuredPool, Order, create_and_seed, engine_from_environment
from pgwatch_sessions.pools import TagMiddleware
from pgwatch_sessions.pools.metrics import PoolCollector

SYMBOLS = {"EUR": "€", "USD": "$"}

new_session = async_sessionmaker(expire_on_commit=False)  # bound to the engine in `lifespan`
recent_failures: deque[TracebackType | None] = deque(maxlen=1000)


async def orders_leaking(customer: int) -> list[str]:
    """List orders with the mistake: after an exception, the last line does not close the session."""
    session = new_session()
    orders = await session.scalars(select(Order).where(Order.customer_id == customer))
    lines = [line_of(order) for order in orders]
    await session.close()
    return lines


async def orders_fixed(customer: int) -> list[str]:
    """List orders with the fix: `async with` closes the session even after an exception."""
    async with new_session() as session:
        orders = await session.scalars(select(Order).where(Order.customer_id == customer))
        return [line_of(order) for order in orders]


class UnknownCurrencyError(Exception):
    """An order has a currency without a symbol."""


def line_of(order: Order) -> str:
    """Return the order as text, such as "order 1: 1.05 €"."""
    if order.currency not in SYMBOLS:
        raise UnknownCurrencyError(f"order {order.id} has an unknown currency")
    return f"order {order.id}: {order.cents / 100:.2f} {SYMBOLS[order.currency]}"


async def session_of_request() -> AsyncIterator[AsyncSession]:
    """Yield a session that is closed before the response is sent."""
    async with new_session() as session:
        yield session


RequestSession = Annotated[AsyncSession, Depends(session_of_request, scope="function")]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the engine while the application runs."""
    app.state.engine = engine_from_environment()
    app.state.fixed = os.environ.get("ORDERS_FIXED") == "1"
    new_session.configure(bind=app.state.engine)
    await create_and_seed(app.state.engine)
    yield
    await app.state.engine.dispose()


app = FastAPI(title="orders-api", lifespan=lifespan)
app.add_middleware(TagMiddleware)  # names the route in the comments of statements
app.mount("/metrics", make_asgi_app())
REGISTRY.register(PoolCollector())


@app.exception_handler(UnknownCurrencyError)
async def keep_failure(_request: Request, error: Exception) -> JSONResponse:
    """Keep the traceback and with it all local variables, so that the garbage collector closes no session."""
    recent_failures.append(error.__traceback__)
    return JSONResponse({"detail": str(error)}, status_code=500)


@app.exception_handler(PoolTimeoutError)
async def no_connection(_request: Request, _error: Exception) -> JSONResponse:
    """Answer 503 if the pool has no free connection."""
    return JSONResponse({"detail": "no database connection is free"}, status_code=503)


@app.get("/orders")
async def list_orders(customer: int) -> list[str]:
    """List a customer's orders, with the mistake or with the fix."""
    return await (orders_fixed if app.state.fixed else orders_leaking)(customer)


@app.get("/orders/{order}")
async def show_order(order: int, session: RequestSession) -> str:
    """Show one order."""
    found = await session.get(Order, order)
    if found is None:
        raise HTTPException(404)
    return line_of(found)


@app.get("/customers")
async def list_customers(session: RequestSession) -> list[str]:
    """List all customers."""
    return list(await session.scalars(select(Customer.name).order_by(Customer.id)))


@app.post("/fix")
async def fix() -> None:
    """Do what a deployment of the fix does: use the new code, and close the sessions that leaked.

    SQLAlchemy logs an error for each session that was left open.
    """
    app.state.fixed = True
    recent_failures.clear()
    gc.collect()


@app.get("/pool")
async def show_pool() -> dict[str, object]:
    """Return the pool's numbers, which only the application knows; times are seconds."""
    pool: MeasuredPool = app.state.engine.pool
    return {
        "size": pool.size(),
        "checked_out": pool.checkedout(),
        "overflow": max(0, pool.overflow()),  # SQLAlchemy counts from -size
        "timeouts": pool.timeouts,
        "wait_p95": pool.wait_p95(),
        "fixed": app.state.fixed,
    }


def main() -> None:
    """Serve until SIGTERM or SIGINT; the first line of output is the address."""
    parser = argparse.ArgumentParser(description="A small order service that leaks database connections.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on, %(default)s by default")
    parser.add_argument("--port", type=int, default=0, help="any free port by default")
    options = parser.parse_args()
    # Listening starts first: a client that reads the address can connect, and waits for the answer.
    with socket.create_server((options.host, options.port)) as listener:
        # asyncio sets it only on sockets with an explicit protocol; without it each answer takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        sys.stdout.write(f"http://{options.host}:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
