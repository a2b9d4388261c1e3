"""Handlers that take a session and do not close it, each beside the one with a context manager."""

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.claims.services.engines import ORDER, measured_engine, pool_figures
from tests.claims.services.serving import Options, serve


def application_of(options: Options) -> FastAPI:
    """Return the application; `form` is not used, the path chooses the handler."""
    engine = measured_engine(options.dsn, size=options.size, overflow=options.overflow, timeout=options.timeout)
    app = FastAPI()
    kept: list[object] = []

    @app.exception_handler(LookupError)
    async def remember(_request: Request, error: Exception) -> JSONResponse:
        """Keep the traceback with its local variables, as a page of recent errors does."""
        kept.append(error.__traceback__)
        return JSONResponse({}, status_code=500)

    @app.get("/pool")
    async def pool() -> dict[str, float]:
        return pool_figures(engine)

    app.include_router(_leaking(engine, kept))
    app.include_router(_correct(engine))
    return app


def _leaking(engine: Engine, kept: list[object]) -> APIRouter:
    """Return the handlers that do not close their session."""
    routes = APIRouter()

    @routes.get("/unclosed")
    async def unclosed() -> list[int]:
        session = Session(engine)
        return list(session.scalars(ORDER, {"id": 1}))

    @routes.get("/early-return")
    async def early_return() -> list[int]:
        session = Session(engine)
        totals = list(session.scalars(ORDER, {"id": 0}))
        if not totals:
            return []
        session.close()
        return totals

    @routes.get("/exception")
    async def exception() -> None:
        session = Session(engine)
        session.scalars(ORDER, {"id": 1}).one()
        if session.is_active:
            raise RuntimeError
        session.close()

    @routes.get("/kept")
    async def keep() -> list[int]:
        session = Session(engine)
        kept.append(session)
        return list(session.scalars(ORDER, {"id": 1}))

    @routes.get("/kept-exception")
    async def kept_exception() -> None:
        session = Session(engine)
        session.scalars(ORDER, {"id": 1}).one()
        raise LookupError

    return routes


def _correct(engine: Engine) -> APIRouter:
    """Return the handlers that close their session."""
    routes = APIRouter()

    @routes.get("/fixed-early-return")
    async def fixed_early_return() -> list[int]:
        with Session(engine) as session:
            return list(session.scalars(ORDER, {"id": 0}))

    @routes.get("/fixed-exception")
    async def fixed_exception() -> None:
        with Session(engine) as session:
            session.scalars(ORDER, {"id": 1}).one()
            raise LookupError

    @routes.get("/slow")
    def slow() -> None:
        with Session(engine) as session:
            session.execute(text("SELECT pg_sleep(0.2)"))

    return routes


if __name__ == "__main__":
    serve(application_of)
