"""The database side of the sample service: its tables, their first rows, and the engine.

Every statement has a comment with its route and the line that borrowed the connection, so that the server shows which
line leaks. The pool is watched, and a connection that is out for 5 s is logged with its line.
"""

import os
import time
from collections import deque
from typing import Any

from sqlalchemy import ForeignKey, PoolProxiedConnection, func, insert, make_url, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from pgwatch_sessions.pools import instrument, tag_statements

CUSTOMERS = range(1, 11)
#: This customer has an order with an unknown currency.
BAD_CUSTOMER = 7


class Base(DeclarativeBase):
    """Base class of the tables."""


class Customer(Base):
    """A customer."""

    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """An order. The database accepts any currency."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    cents: Mapped[int]
    currency: Mapped[str]


class MeasuredQueuePool(QueuePool):
    """A pool that measures how long requests wait for a connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: The latest thousand waits: their end, by time.monotonic, and their seconds.
        self.waits: deque[tuple[float, float]] = deque(maxlen=1000)
        self.timeouts = 0

    def connect(self) -> PoolProxiedConnection:
        """Check out a connection."""
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
        """Return the 95th percentile, in seconds, of the waits that ended within the window; 0 if there is none."""
        since = time.monotonic() - window
        waits = sorted(wait for at, wait in self.waits if at >= since)
        return waits[int(0.95 * len(waits))] if waits else 0.0


class MeasuredPool(MeasuredQueuePool, AsyncAdaptedQueuePool):
    """The same for asynchronous engines."""


def engine_from_environment() -> AsyncEngine:
    """Return the engine; `application_name` of its sessions is orders-api."""
    engine = create_async_engine(
        make_url(os.environ["ORDERS_DSN"]).set(drivername="postgresql+asyncpg"),
        poolclass=MeasuredPool,
        pool_size=int(os.environ.get("ORDERS_POOL_SIZE", "5")),
        max_overflow=int(os.environ.get("ORDERS_MAX_OVERFLOW", "10")),
        pool_timeout=float(os.environ.get("ORDERS_POOL_TIMEOUT", "2")),
    )
    tag_statements(engine, application="orders-api")
    instrument(engine, name="orders", leak_threshold=5)
    return engine


async def create_and_seed(engine: AsyncEngine) -> None:
    """Create the tables, and rows if there are none."""
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
