"""An engine whose pool measures waits and time-outs, and what a service tells about it."""

import math
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, text

from pgwatch_sessions.demo.orders import MeasuredQueuePool

ORDER = text("SELECT total FROM orders WHERE id = :id")


def measured_engine(dsn: str, *, size: int, overflow: int, timeout: float) -> Engine:
    """Create an engine on psycopg."""
    return create_engine(
        make_url(dsn).set(drivername="postgresql+psycopg"),
        poolclass=MeasuredQueuePool,
        pool_size=size,
        max_overflow=overflow,
        pool_timeout=timeout,
    )


def pool_figures(engine: Engine) -> dict[str, float]:
    """Return the pool's figures and the memory of this process in KiB; times are seconds."""
    pool = engine.pool
    assert isinstance(pool, MeasuredQueuePool)
    return {
        "checked_out": pool.checkedout(),
        "timeouts": pool.timeouts,
        "wait_p95": pool.wait_p95(window=math.inf),
        "resident_kib": resident_kib(),
    }


def resident_kib() -> int:
    """Return the resident memory of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
