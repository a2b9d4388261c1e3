import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route

from pgwatch_sessions.pools import TagMiddleware
from pgwatch_sessions.pools.ledger import current_tags
from pgwatch_sessions.pools.tagging.context import tags_now

seen: list[str] = []


def note() -> None:
    """Keep the route that a statement would be tagged with here."""
    seen.append(tags_now().get("route", "(none)"))


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    """Each test begins with an empty list."""
    seen.clear()
    yield
    assert tags_now() == {}


async def get(app: Any, path: str) -> int:
    """Return the status of a request."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return (await client.get(path)).status_code


async def noting(_: Request) -> PlainTextResponse:
    """Be an endpoint."""
    note()
    return PlainTextResponse("ok")


async def forgetting(request: Request) -> PlainTextResponse:
    """Be an endpoint of Starlette before 1.0, which does not name the route."""
    request.scope.pop("route", None)
    return await noting(request)


async def yielding() -> AsyncIterator[None]:
    """Be a dependency that also works after the answer."""
    note()
    yield
    note()


def in_a_thread() -> None:
    """Be a dependency that runs in a thread."""
    note()


def fastapi_app() -> FastAPI:
    """Return an application with a router in a router, and one that is mounted."""
    inner, outer = APIRouter(prefix="/items"), APIRouter(prefix="/v1")

    @inner.get("/{item}")
    def show(item: int, _a: Annotated[None, Depends(yielding)], _b: Annotated[None, Depends(in_a_thread)]) -> int:
        note()
        return item

    outer.include_router(inner, prefix="/{shop}")
    app, mounted = FastAPI(), FastAPI()
    app.include_router(outer)

    @mounted.get("/orders/{order}")
    async def order(order: int, background: BackgroundTasks) -> int:
        background.add_task(note)
        await asyncio.create_task(asyncio.to_thread(note))
        return order

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            note()
            yield "line"

        return StreamingResponse(lines())

    app.mount("/t/{tenant}", mounted)
    app.add_middleware(TagMiddleware)
    return app


@pytest.mark.parametrize(
    ("path", "route", "times"),
    [
        ("/v1/acme/items/7", "/v1/{shop}/items/{item}", 4),
        ("/t/acme/orders/7", "/t/{tenant}/orders/{order}", 2),
        ("/stream", "/stream", 1),
    ],
)
async def test_the_route_is_a_template_wherever_a_statement_may_be_sent(path: str, route: str, times: int) -> None:
    """With the prefixes of routers and mounts; in threads, tasks, streams, background tasks and after `yield`."""
    app = fastapi_app()
    assert await get(app, path) == 200
    assert seen == [route] * times


async def test_mounts_in_mounts_and_a_middleware_around_everything() -> None:
    """Starlette's own mounts; the middleware need not be inside the application."""
    app = Starlette(
        routes=[
            Mount("/a/{x}", routes=[Mount("/b", app=Starlette(routes=[Route("/c/{y}", noting)]))]),
            Route("/{path:path}", forgetting),
        ]
    )
    for wrapped in (TagMiddleware(app), Starlette(routes=app.routes, middleware=[Middleware(TagMiddleware)])):
        assert await get(wrapped, "/a/secret/b/c/1") == 200
        assert await get(wrapped, "/other") == 200
    assert seen == ["/a/{x}/b/c/{y}", "/{path:path}"] * 2


async def test_mounts_behind_a_host_and_in_an_included_router() -> None:
    """Neither adds to the path, or has a pattern for it."""
    mount = Mount("/a/{x}", routes=[Route("/c/{y}", noting)])
    await get(TagMiddleware(Starlette(routes=[Host("{sub}", Starlette(routes=[mount]))])), "/a/secret/c/1")
    router, app = APIRouter(), FastAPI()
    router.mount("/a/{x}", Starlette(routes=[Route("/c/{y}", noting)]))
    app.include_router(router, prefix="/v1")
    app.mount("/b/{x}", Starlette(routes=[Route("/c/{y}", noting)]))
    assert await get(TagMiddleware(app), "/v1/a/secret/c/1") == 200
    assert await get(TagMiddleware(app), "/b/secret/c/1") == 200
    assert seen == ["/a/{x}/c/{y}", "/v1/a/{x}/c/{y}", "/b/{x}/c/{y}"]


async def test_a_router_that_nobody_knows_breaks_no_request() -> None:
    """The request is answered, without a tag."""

    class Unknown:
        @property
        def path(self) -> str:
            raise RuntimeError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Unknown()
        note()
        await PlainTextResponse("ok")(scope, receive, send)

    assert await get(TagMiddleware(app), "/") == 200
    assert seen == ["(none)"]


async def test_where_only_the_endpoint_is_known_its_route_is_looked_up() -> None:
    """Two routes of one endpoint cannot be told apart, so they have no tag."""
    mounted = Mount("/a/{x}", routes=[Route("/c/{y}", forgetting)])
    await get(TagMiddleware(Starlette(routes=[mounted, Route("/one", noting)])), "/a/secret/c/1")
    await get(TagMiddleware(Starlette(routes=[Route("/one", forgetting), Route("/two", forgetting)])), "/one")
    assert seen == ["/a/{x}/c/{y}", "(none)"]


async def test_a_request_without_a_route_has_no_tag() -> None:
    """Its path is a value of the request, so it is never a tag."""

    class Noting:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            note()
            await self._app(scope, receive, send)

    app = fastapi_app()
    app.add_middleware(Noting)  # runs first
    assert await get(app, "/nothing/here") == 404
    assert await get(Starlette(routes=[], middleware=[Middleware(TagMiddleware), Middleware(Noting)]), "/x") == 404
    assert seen == ["(none)", "(none)"]


async def test_work_that_outlives_its_request_keeps_the_route() -> None:
    """A task that was created by the request, and not awaited, still names it."""
    go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        await go_on.wait()
        note()

    async def endpoint(_: Request) -> PlainTextResponse:
        tasks.append(asyncio.create_task(later()))
        return PlainTextResponse("ok")

    await get(TagMiddleware(Starlette(routes=[Route("/orders/{id}", endpoint)])), "/orders/7")
    go_on.set()
    await tasks[0]
    assert seen == ["/orders/{id}"]


async def test_the_tags_keep_no_request_alive() -> None:
    """Who leaks a connection keeps its tags; they must not keep the request, and with it perhaps the connection."""

    class Body:
        pass

    body = Body()
    kept, sources = weakref.ref(body), list[object]()

    async def endpoint(request: Request) -> PlainTextResponse:
        request.scope["state"] = {"body": request.scope["holder"].pop()}
        sources.append(current_tags.get())
        return PlainTextResponse("ok")

    async def server(scope: Any, receive: Any, send: Any) -> None:
        scope["holder"] = holder
        await TagMiddleware(Starlette(routes=[Route("/{id}", endpoint)]))(scope, receive, send)

    holder = [body]
    del body
    await get(server, "/7")
    gc.collect()
    assert len(sources) == 1
    assert kept() is None


async def test_other_connections_pass_through() -> None:
    """The lifespan has no request."""
    called: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        called.append(scope["type"])

    await TagMiddleware(app)({"type": "lifespan"}, None, None)
    assert called == ["lifespan"]
