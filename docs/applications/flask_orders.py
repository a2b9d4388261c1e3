"""Flask and SQLAlchemy: `flask --app flask_orders run`, with the database in ORDERS_DSN."""

import os

from flask import Flask
from sqlalchemy import create_engine, text

from pgwatch_sessions.pools import tag_flask_requests, tag_statements

engine = create_engine(os.environ["ORDERS_DSN"])
tag_statements(engine, application="orders")

app = Flask(__name__)
tag_flask_requests(app)


@app.get("/orders/<int:order>")
def read_order(order: int) -> str:
    """Read one order."""
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT cents FROM orders WHERE id = :order"), {"order": order})
    return str(found or 0)
