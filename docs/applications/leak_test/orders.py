"""A module of an application, with a leak: an order that does not exist is an early return, without a close."""

import os

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

engine = create_engine(os.environ["DATABASE_URL"])
_ORDER = text("SELECT relname FROM pg_class WHERE oid = :number")


def read_order(number: int) -> str | None:
    """Return an order, or None."""
    session = Session(engine)
    order = session.execute(_ORDER, {"number": number}).scalar()
    if order is None:
        return None
    session.close()
    return str(order)


def read_order_fixed(number: int) -> str | None:
    """Return an order, or None. However the block ends, it returns the connection."""
    with Session(engine) as session:
        order = session.execute(_ORDER, {"number": number}).scalar()
        return None if order is None else str(order)
