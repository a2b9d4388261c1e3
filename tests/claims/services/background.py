"""A session of a request beside background work: what each way holds while the work goes on."""

import time
from collections.abc import Iterator
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy.orm import Session

from tests.claims.services.engines import ORDER, measured_engine, pool_figures
from tests.claims.services.serving import Options, serve

#: How long the work takes after its query, such as a call to another service.
WORK_SECONDS = 4.0


def application_of(options: Options) -> FastAPI:
    """Return the application: form `shared`, `own`, or `function` (own, and the request's session ends first)."""
    engine = measured_engine(options.dsn, size=options.size, overflow=options.overflow, timeout=options.timeout)
    app = FastAPI()

    def get_db() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    # Only FastAPI from 0.121 on knows the scope.
    dependency = Depends(get_db, scope="function") if options.form == "function" else Depends(get_db)

    def work_with(session: Session) -> None:
        session.scalars(ORDER, {"id": 2}).one()
        time.sleep(WORK_SECONDS)

    def work_alone() -> None:
        with Session(engine) as session:
            session.scalars(ORDER, {"id": 2}).one()
        time.sleep(WORK_SECONDS)

    @app.get("/pool")
    async def pool() -> dict[str, float]:
        return pool_figures(engine)

    @app.get("/order")
    async def order(tasks: BackgroundTasks, session: Annotated[Session, dependency]) -> None:
        session.scalars(ORDER, {"id": 1}).one()
        if options.form == "shared":
            tasks.add_task(work_with, session)
        else:
            tasks.add_task(work_alone)

    return app


if __name__ == "__main__":
    serve(application_of)
