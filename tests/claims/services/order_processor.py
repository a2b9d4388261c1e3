"""An order processor with two sessions, one of which is never closed, and the same with one session."""

from fastapi import FastAPI, HTTPException
from sqlalchemy import Engine, ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.claims.services.engines import measured_engine, pool_figures
from tests.claims.services.serving import Options, serve


class Base(DeclarativeBase):
    """Base class of the tables."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]


class Item(Base):
    """One line of an order."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    price: Mapped[int]
    quantity: Mapped[int]


def total_of(items: list[Item]) -> int:
    """Add up the items; an order without items is an error."""
    if not items:
        raise LookupError
    return sum(item.price * item.quantity for item in items)


async def processed_before(engine: Engine, order_id: int) -> Order | None:
    """Process an order with two sessions."""
    first = Session(engine)
    order = first.get(Order, order_id)
    if order is None:
        return None
    second = Session(engine)
    items = list(second.scalars(select(Item).where(Item.order_id == order_id)))
    order.total = total_of(items)
    first.commit()
    first.close()
    return order


async def processed_after(engine: Engine, order_id: int) -> Order | None:
    """Process an order with one session, which is closed in any case."""
    with Session(engine) as session:
        order = session.get(Order, order_id)
        if order is None:
            return None
        order.total = total_of(list(session.scalars(select(Item).where(Item.order_id == order_id))))
        session.commit()
        session.refresh(order)
        return order


def application_of(options: Options) -> FastAPI:
    """Return the application: form `before` or `after`."""
    engine = measured_engine(options.dsn, size=options.size, overflow=options.overflow, timeout=options.timeout)
    process = processed_before if options.form == "before" else processed_after
    app = FastAPI()

    @app.get("/pool")
    async def pool() -> dict[str, float]:
        return pool_figures(engine)

    @app.get("/process/{order_id}")
    async def process_order(order_id: int) -> int:
        order = await process(engine, order_id)
        if order is None:
            raise HTTPException(404)
        return order.total

    return app


if __name__ == "__main__":
    serve(application_of)
