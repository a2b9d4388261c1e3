"""APScheduler and SQLAlchemy: `python apscheduler_orders.py`, with the database in ORDERS_DSN."""

import os

from apscheduler.schedulers.blocking import BlockingScheduler
from sqlalchemy import create_engine, text

from pgwatch_sessions.pools import job, tag_statements

engine = create_engine(os.environ["ORDERS_DSN"])
tag_statements(engine, application="orders-scheduler")

scheduler = BlockingScheduler()


@scheduler.scheduled_job("interval", minutes=1, id="orders.read", args=(7,))
def read_order(order: int) -> int:
    """Read one order."""
    with job("orders.read"), engine.connect() as connection:
        found = connection.scalar(text("SELECT cents FROM orders WHERE id = :order"), {"order": order})
    return int(found or 0)


if __name__ == "__main__":
    scheduler.start()
