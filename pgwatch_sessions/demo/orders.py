"""The database side of the sample service: its tables, their first rows, and the engine.

Every statement carries the route it was issued for in a comment, so that the server can show who leaks.
"""

import os
import time
from collections import deque
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from sqlalchemy import ForeignKey, PoolProxiedConnection, event, func, insert, make_url, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool

CUSTOMERS = range(1, 11)
#: Whose orders include the one that no line can be made of.
BAD_CUSTOMER = 7

#: What may stand in a comment. Never a traceparent: each new one would be one more prepared statement.
TAG_KEYS = ("application", "route")
tags: ContextVar[dict[str, str]] = ContextVar("tags")


class Base(DeclarativeBase):
    """The tables."""


class Customer(Base):
    """Somebody who orders."""

    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """An order; nothing stops its currency from being nonsense."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    cents: Mapped[int]
    currency: Mapped[str]


class MeasuredPool(AsyncAdaptedQueuePool):
    """A pool that knows how long its users waited for a connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: When the latest thousand waits ended, by time.monotonic, and their seconds.
        self.waits: deque[tuple[float, float]] = deque(maxlen=1000)
        self.timeouts = 0

    def connect(self) -> PoolProxiedConnection:
        """Check a connection out."""
        start = time.monotonic()
        try:
            return super().connect()
        except PoolTimeoutError:
            self.timeouts += 1
            raise
        finally:
            now = time.monotonic()
            self.waits.append((now, now - start))

    def wait_p95(self, window: float = 10.0) -> float:
        """Return how long, in seconds, all but the unluckiest twentieth waited of late; 0 if nobody did."""
        since = time.monotonic() - window
        waits = sorted(wait for at, wait in self.waits if at >= since)
        return waits[int(0.95 * len(waits))] if waits else 0.0


def engine_from_environment() -> AsyncEngine:
    """Make the engine; the server knows its sessions as `orders-api`."""
    engine = create_async_engine(
        make_url(os.environ["ORDERS_DSN"]).set(drivername="postgresql+asyncpg"),
        poolclass=MeasuredPool,
        pool_size=int(os.environ.get("ORDERS_POOL_SIZE", "5")),
        max_overflow=int(os.environ.get("ORDERS_MAX_OVERFLOW", "10")),
        pool_timeout=float(os.environ.get("ORDERS_POOL_TIMEOUT", "2")),
        connect_args={"server_settings": {"application_name": "orders-api"}},
    )
    event.listen(engine.sync_engine, "before_cursor_execute", tagged, retval=True)
    return engine


def tagged(
    _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _executemany: object
) -> tuple[str, Any]:
    """Prepend the tags as a comment: at the end they would be lost where PostgreSQL cuts a long statement."""
    present = tags.get({})
    pairs = [f"{key}='{quote(present[key], safe='/')}'" for key in TAG_KEYS if key in present]
    return (f"/*{','.join(pairs)}*/ {statement}" if pairs else statement), parameters


async def create_and_seed(engine: AsyncEngine) -> None:
    """Create the tables, and their rows if there are none."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if await connection.scalar(select(func.count()).select_from(Customer)):
            return
        await connection.execute(insert(Customer), [{"id": who, "name": f"customer {who}"} for who in CUSTOMERS])
        orders = [
            {"customer_id": who, "cents": 100 * who + item, "currency": "EUR"} for who in CUSTOMERS for item in (5, 95)
        ]
        bad = {"customer_id": BAD_CUSTOMER, "cents": 1999, "currency": "EURO"}
        await connection.execute(insert(Order), [*orders, bad])
