"""Tags the statements of requests to Starlette and FastAPI with the template of their route.

The middleware is pure ASGI: one that is made with BaseHTTPMiddleware would run the application in a task of its own.
"""

import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from pgwatch_sessions.pools.tagging.context import begin, end

_log = logging.getLogger("pgwatch_sessions.pools")

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


class TagMiddleware:
    """ASGI middleware: `app.add_middleware(TagMiddleware)`."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Run the application with the tags of this request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        request = _RequestTags(scope, scope.get("app", self._app))
        token = begin(request)
        try:
            await self._app(scope, receive, send)
        finally:
            request.forget_scope()
            end(token)


class _RequestTags:
    """Returns the tags of a request. It keeps the request's scope only until the request has ended."""

    __slots__ = ("_app", "_root_path", "_scope", "_tags")

    def __init__(self, scope: Scope, app: object) -> None:
        self._scope: Scope | None = scope
        self._app = app
        #: The server's; mounts add theirs to it.
        self._root_path: str = scope.get("root_path", "")
        self._tags: Mapping[str, str] | None = None

    def __call__(self) -> Mapping[str, str]:
        if self._tags is not None or self._scope is None:
            return self._tags or {}
        try:
            route = _route_template(self._scope, self._app, self._root_path)
        except Exception:  # noqa: BLE001  # of a router that nobody knows; a tag is never worth a failed request
            _log.debug("the route of a request cannot be told", exc_info=True)
            self._tags = {}
        else:
            self._tags = None if route is None else {"route": route}  # before routing: ask again
        return self._tags or {}

    def forget_scope(self) -> None:
        self._tags = self()
        self._scope = self._app = None


def _route_template(scope: Scope, app: object, root_path: str) -> str | None:
    """Return the template of the route with the prefixes of routers and mounts; None before routing."""
    route = scope.get("route")
    if route is None:
        return _endpoint_template(getattr(app, "routes", ()), scope.get("endpoint"))
    # From 0.137 on, FastAPI keeps the prefix of include_router apart.
    included = getattr(scope.get("fastapi", {}).get("effective_route_context"), "path", None)
    path = included or getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    mounted = str(scope.get("root_path", "")).removeprefix(root_path)
    return _mount_template(getattr(app, "routes", ()), mounted) + path if mounted else path


def _endpoint_template(routes: Iterable[Any], endpoint: object) -> str | None:
    """Return the template of the only route that has this endpoint: Starlette before 1.0 does not name the route."""
    found = set(_templates(routes, endpoint)) if endpoint is not None else set()
    return found.pop() if len(found) == 1 else None


def _templates(routes: Iterable[Any], endpoint: object, prefix: str = "") -> Iterator[str]:
    for route in routes:
        path = f"{prefix}{getattr(route, 'path', '')}"
        if getattr(route, "endpoint", None) is endpoint:
            yield path
        yield from _templates(getattr(route, "routes", None) or (), endpoint, path)


def _mount_template(routes: Iterable[Any], mounted: str) -> str:
    """Return the templates of the mounts that lead to a path such as `/t/acme`, joined: `/t/{tenant}`.

    The path itself is never returned: it has values of the request.
    """
    # FastAPI from 0.137 on keeps the routes of an included router apart.
    expand = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", iter)
    for route in expand(routes):
        inner = getattr(route, "routes", None)
        if not isinstance(inner, list):
            continue
        pattern = getattr(route, "path_regex", None)
        if pattern is None:  # Host
            if found := _mount_template(inner, mounted):
                return found
        elif match := pattern.match(f"{mounted}/"):
            rest = str(match.groupdict().get("path", "")).rstrip("/")
            return f"{route.path}{_mount_template(inner, f'/{rest}') if rest else ''}"
    return ""
