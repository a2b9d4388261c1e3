"""What each HTTP address answers. Answers come from the published states; no request polls a database."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgwatch_sessions.assets.catalogue import runbook_names
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.metrics.exposition import choose_format, render
from pgwatch_sessions.web import json_api
from pgwatch_sessions.web.page.content_security_policy import CONTENT_SECURITY_POLICY
from pgwatch_sessions.web.page.page import Link, page_of
from pgwatch_sessions.web.render_cache import RenderCache
from pgwatch_sessions.wording.runbooks import SERVED

#: Returns the published states by server: the same object until the next poll of any server.
States = Callable[[], Mapping[str, ServerState]]
#: Wraps an application in one that refuses some requests.
Guard = Callable[[ASGIApp], ASGIApp]

#: Selections of metrics by `name[]` that are rendered for one published state.
_MAX_SELECTIONS = 16

_DOCUMENT_MEANINGS = {
    "leaks": "open findings, with advice",
    "sessions": "sessions at the last poll of each server",
    "diagnosis": "what is wrong with each server and client, and how full each limit is",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The answer of a probe: whether it passes, and why, in one line for people."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    path: str
    meaning: str
    answer: Callable[[Request], Awaitable[Response]]


def web_app(
    *,
    version: str,
    registry: CollectorRegistry,
    states: States,
    health: Callable[[], Health],
    readiness: Callable[[], Health],
    guard: Guard | None = None,
) -> ASGIApp:
    """Return the application. Without a `guard`, every request is answered.

    An error in a collector or a probe is answered with 500 and raised to the HTTP server, which logs it.
    """
    # Two caches, so that requests with many different parameters cannot fill that of the page and the whole documents.
    whole, selected = RenderCache(states), RenderCache(states)
    metrics, *probes = _metrics_and_probes(registry=registry, states=states, health=health, readiness=readiness)
    documents = (
        _Address(
            path=f"/api/v1/{name}",
            meaning=meaning,
            answer=_document(json_api.DOCUMENTS[name], states, whole=whole, selected=selected),
        )
        for name, meaning in _DOCUMENT_MEANINGS.items()
    )
    runbooks = _Address(path=SERVED, meaning="what to do about each alert", answer=_runbook_list)
    addresses = (metrics, *documents, runbooks, *probes)
    links = tuple(Link(path=each.path, meaning=each.meaning) for each in addresses)
    page = _Address(path="/", meaning="the page", answer=_page(states, whole, version=version, links=links))
    return _application((page, *addresses), guard, further=_runbook_routes())


def metrics_app(
    *,
    registry: CollectorRegistry,
    states: States,
    health: Callable[[], Health],
    readiness: Callable[[], Health],
    guard: Guard | None = None,
) -> ASGIApp:
    """Return an application with the metrics and probes only: nothing that shows a statement or a finding."""
    return _application(
        _metrics_and_probes(registry=registry, states=states, health=health, readiness=readiness), guard
    )


def _metrics_and_probes(
    *, registry: CollectorRegistry, states: States, health: Callable[[], Health], readiness: Callable[[], Health]
) -> tuple[_Address, ...]:
    return (
        _Address(path="/metrics", meaning="metrics for Prometheus", answer=_metrics(registry, states)),
        _Address(path="/healthz", meaning="whether the daemon itself works", answer=_probe(health)),
        _Address(path="/readyz", meaning="whether every server has been polled", answer=_probe(readiness)),
    )


def _application(addresses: Sequence[_Address], guard: Guard | None, *, further: Sequence[Route] = ()) -> ASGIApp:
    """Return the application. It answers `further` routes too, but names them nowhere."""
    known = ", ".join(each.path for each in addresses)
    app = Starlette(
        routes=[*(Route(each.path, each.answer) for each in addresses), *further],
        exception_handlers={
            404: _short(404, f"Nothing here. Known addresses: {known}"),
            405: _short(405, f"Only GET and HEAD are allowed. Known addresses: {known}"),
            500: _short(500, "Internal error. See the daemon's log."),
        },
    )
    # A redirect from /metrics/ would use the client's Host header. The 404 names the right address instead.
    app.router.redirect_slashes = False
    return _with_common_headers(guard(app) if guard else app)


def _metrics(registry: CollectorRegistry, states: States) -> Callable[[Request], Awaitable[Response]]:
    # Two caches, so that requests with many different names cannot keep Prometheus from the metrics.
    whole, selected = RenderCache(states), RenderCache(states, limit=_MAX_SELECTIONS)

    async def metrics(request: Request) -> Response:
        chosen = choose_format(
            accept=",".join(request.headers.getlist("accept")),
            accept_encoding=",".join(request.headers.getlist("accept-encoding")),
        )
        names = frozenset(request.query_params.getlist("name[]"))
        cache, source = (selected, registry.restricted_registry(names)) if names else (whole, registry)
        body = cache.get((names, chosen.content_type, chosen.gzip), lambda: render(source, chosen))
        if body is None:
            text = "Too many different selections of name[] since the last poll. Omit name[] to get all metrics.\n"
            return PlainTextResponse(text, status_code=503)
        headers = {"Content-Type": chosen.content_type, "Vary": "Accept, Accept-Encoding"}
        if chosen.gzip:
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)

    return metrics


def _page(
    states: States, cache: RenderCache, *, version: str, links: Sequence[Link]
) -> Callable[[Request], Awaitable[Response]]:
    from pgwatch_sessions.web.page.templates import render_page  # noqa: PLC0415  # loads Jinja2, which only this needs

    async def answer(request: Request) -> Response:
        refreshing = request.query_params.get("refresh") != "off"

        def render_html() -> bytes:
            page = page_of(tuple(states().values()), version=version, links=links, refreshing=refreshing)
            return render_page(page).encode(errors="replace")

        return _rendered(cache.get(("page", refreshing), render_html), "text/html; charset=utf-8")

    return answer


def _document(
    document: json_api.Document, states: States, *, whole: RenderCache, selected: RenderCache
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        now = states()
        try:
            selection = json_api.selection_of(request.query_params, servers=now)
        except LookupError as error:
            return JSONResponse({"error": str(error)}, status_code=404)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        cache = whole if selection == json_api.Selection() else selected
        body = cache.get((document, selection), lambda: json_api.to_json(document(now, selection)))
        return _rendered(body, "application/json")

    return answer


def _runbook_routes() -> tuple[Route, ...]:
    return Route(SERVED.rstrip("/"), _runbook_list), Route(f"{SERVED}{{name}}", _runbook)


async def _runbook_list(request: Request) -> Response:
    from pgwatch_sessions.web.page.templates import render_runbook_list  # noqa: PLC0415  # loads Jinja2

    folder = "" if request.scope["path"].endswith("/") else SERVED.strip("/") + "/"
    return HTMLResponse(render_runbook_list(runbook_names(), folder=folder))


async def _runbook(request: Request) -> Response:
    name = request.path_params["name"].removesuffix(".md")  # the name of the file, which old links have
    if name not in runbook_names():
        text = f"No runbook has this name. Runbooks: {', '.join(runbook_names())}\n"
        return PlainTextResponse(text, status_code=404)
    from pgwatch_sessions.web.runbooks import runbook_page  # noqa: PLC0415  # loads markdown-it-py, which few need

    return HTMLResponse(runbook_page(name))


def _rendered(body: bytes | None, media_type: str) -> Response:
    if body is None:
        return PlainTextResponse(
            "Too many different requests since the last poll. Try again after the next one.\n", status_code=503
        )
    return Response(body, media_type=media_type)


def _probe(judge: Callable[[], Health]) -> Callable[[Request], Awaitable[Response]]:
    async def probe(_request: Request) -> Response:
        health = judge()
        return PlainTextResponse(health.reason + "\n", status_code=200 if health.ok else 503)

    return probe


def _short(status: int, text: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        headers = error.headers if isinstance(error, HTTPException) else None
        return PlainTextResponse(text + "\n", status_code=status, headers=headers)

    return answer


def _with_common_headers(app: ASGIApp) -> ASGIApp:
    """Refuse requests with a body, and add the common headers to every answer."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Date"] = formatdate(usegmt=True)
                headers["Cache-Control"] = "no-store"
                headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        answering = _refuse_body if _announces_body(Headers(scope=scope)) else app
        await answering(scope, receive, send_with_headers)

    return answer


#: This answer closes the connection, so that the body is never read.
_refuse_body = PlainTextResponse(
    "No address here takes a request body.\n", status_code=413, headers={"Connection": "close"}
)


def _announces_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""
