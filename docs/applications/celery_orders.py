"""Celery and SQLAlchemy: `celery --app celery_orders worker`, with the database in ORDERS_DSN."""

import os

from celery import Celery
from sqlalchemy import create_engine, text

from pgwatch_sessions.pools import install_celery_tags, tag_statements

engine = create_engine(os.environ["ORDERS_DSN"])
tag_statements(engine, application="orders-worker")
install_celery_tags()

app = Celery("orders", broker=os.environ.get("CELERY_BROKER", "memory://"))


@app.task(name="orders.read")
def read_order(order: int) -> int:
    """Read one order."""
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT cents FROM orders WHERE id = :order"), {"order": order})
    return int(found or 0)
