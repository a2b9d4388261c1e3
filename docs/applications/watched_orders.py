"""FastAPI and SQLAlchemy: metrics of the pool, log lines about leaks, and the borrowers as JSON."""

import os
from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI
from prometheus_client import REGISTRY, make_asgi_app
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pgwatch_sessions.pools import instrument
from pgwatch_sessions.pools.asgi import pools_app
from pgwatch_sessions.pools.metrics import PoolCollector

engine = create_engine(os.environ["DATABASE_URL"])
instrument(engine, name="orders", leak_threshold=30)
REGISTRY.register(PoolCollector())

app = FastAPI()
app.mount("/metrics", make_asgi_app())
app.mount("/debug/pools", pools_app)


def get_db() -> Iterator[Session]:
    """Lend a session to a route."""
    with Session(engine) as session:
        yield session


@app.get("/orders")
def count_orders(session: Annotated[Session, Depends(get_db)]) -> int:
    """Return how many orders there are."""
    return session.scalar(text("SELECT count(*) FROM orders")) or 0
