"""Orders over HTTP: FastAPI, SQLAlchemy and psycopg."""

import os

from fastapi import FastAPI, HTTPException
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

engine = create_engine(os.environ["DATABASE_URL"])
app = FastAPI()


@app.get("/healthz")
def healthz() -> str:
    """Answer once the service runs."""
    return "ok"


@app.get("/orders")
def list_orders() -> list[str]:
    """List some orders."""
    with Session(engine) as session:
        return list(session.scalars(text("SELECT relname FROM pg_class ORDER BY relname LIMIT 3")))


@app.get("/orders/{number}")
def read_order(number: int) -> str:
    """Read one order."""
    with Session(engine) as session:
        order = session.scalar(text("SELECT relname FROM pg_class WHERE oid = :number"), {"number": number})
        if order is None:
            raise HTTPException(404)
        return str(order)
