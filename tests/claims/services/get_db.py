"""A session from a dependency with `yield`, in the forms that are compared."""

import gc
from collections.abc import Callable, Iterator

from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from tests.claims.services.engines import ORDER, measured_engine, pool_figures
from tests.claims.services.serving import Options, serve

GetDb = Callable[[], Iterator[Session]]


def application_of(options: Options) -> FastAPI:
    """Return the application with one form of the dependency."""
    engine = measured_engine(options.dsn, size=options.size, overflow=options.overflow, timeout=options.timeout)
    if options.form == "with-gc-off":
        gc.disable()
    get_db = _forms(engine)[options.form.removesuffix("-gc-off")]
    app = FastAPI()

    @app.get("/pool")
    async def pool() -> dict[str, float]:
        return pool_figures(engine)

    @app.get("/ok", response_model=None)
    def ok(session: Session = Depends(get_db)) -> dict[str, int]:  # noqa: B008  # FastAPI reads it so
        return {"total": session.scalars(ORDER, {"id": 1}).one()}

    @app.get("/error")
    def error(session: Session = Depends(get_db)) -> None:  # noqa: B008  # FastAPI reads it so
        session.scalars(ORDER, {"id": 1}).one()
        raise RuntimeError

    @app.get("/model", response_model=dict[str, int])
    def model(session: Session = Depends(get_db)) -> object:  # noqa: B008  # FastAPI reads it so
        return {"total": session.scalars(ORDER, {"id": 1}).one()}

    return app


def _forms(engine: Engine) -> dict[str, GetDb]:
    def with_block() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    def try_finally() -> Iterator[Session]:
        session = Session(engine)
        try:
            yield session
        finally:
            session.close()

    def bare() -> Iterator[Session]:
        session = Session(engine)
        yield session
        session.close()

    return {"with": with_block, "finally": try_finally, "bare": bare}


if __name__ == "__main__":
    serve(application_of)
