"""An engine whose pool measures waits and time-outs, and what a service tells about it."""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection, create_engine, make_url, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

ORDER = text("SELECT total FROM orders WHERE id = :id")


class MeasuredPool(QueuePool):
    """A pool that measures how long its users wait for a connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: Seconds, of every checkout and every time-out.
        self.waits: list[float] = []
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
            self.waits.append(time.monotonic() - start)


def measured_engine(dsn: str, *, size: int, overflow: int, timeout: float) -> Engine:
    """Create an engine on psycopg."""
    return create_engine(
        make_url(dsn).set(drivername="postgresql+psycopg"),
        poolclass=MeasuredPool,
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=timeout,
    )


def pool_figures(engine: Engine) -> dict[str, float]:
    """Return the pool's figures and the memory of this process in KiB; times are seconds."""
    pool = engine.pool
    assert isinstance(pool, MeasuredPool)
    waits = sorted(pool.waits)
    return {
        "checked_out": pool.checkedout(),
        "timeouts": pool.timeouts,
        "wait_p95": waits[int(0.95 * len(waits))] if waits else 0.0,
        "resident_kib": resident_kib(),
    }


def resident_kib() -> int:
    """Return the resident memory of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
