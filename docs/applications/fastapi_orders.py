"""FastAPI and SQLAlchemy: `uvicorn fastapi_orders:app`, with the database in ORDERS_DSN."""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from pgwatch_sessions.pools import TagMiddleware, tag_statements

engine = create_async_engine(os.environ["ORDERS_DSN"])
tag_statements(engine, application="orders")

app = FastAPI()
app.add_middleware(TagMiddleware)


async def get_session() -> AsyncIterator[AsyncSession]:
    """Yield a session that ends before the response is sent."""
    async with AsyncSession(engine) as session:
        yield session


@app.get("/orders/{order}")
async def read_order(order: int, session: Annotated[AsyncSession, Depends(get_session, scope="function")]) -> int:
    """Read one order."""
    found = await session.scalar(text("SELECT cents FROM orders WHERE id = :order"), {"order": order})
    return int(found or 0)
