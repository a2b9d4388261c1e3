"""Tags the statements of Django with route and view, and with the line that sent the statement.

In Django no line borrows a connection: a thread keeps its own, and the first query of a request takes it. So the line
is that of the query. In settings.py:

    MIDDLEWARE = ["pgwatch_sessions.pools.tagging.django_requests.TagMiddleware", …]
    PGWATCH_SESSIONS_APPLICATION = "orders"
"""

import re
from collections.abc import Callable
from typing import Any

from pgwatch_sessions.pools.tagging.context import begin, end
from pgwatch_sessions.pools.tagging.tagger import StatementTagger

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.db import connections
    from django.db.backends.signals import connection_created
except ImportError as error:
    raise ImportError("tags for Django need Django: pip install django") from error

#: `<int:id>`, `<id>`
_CONVERTER = re.compile(r"<(?:[^<>:]*:)?([^<>]+)>")
_UID = "pgwatch_sessions.tags"


def install_django_tags(*, application: str) -> None:
    """Tag the statements of every connection to PostgreSQL. The middleware calls it; a worker without one may."""
    tagger = StatementTagger(application)

    def tag(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        return execute(tagger.tagged(sql, None) if isinstance(sql, str) else sql, params, many, context)

    def add_to(connection: Any, **_: object) -> None:
        wrappers = connection.execute_wrappers
        if connection.vendor == "postgresql" and not any(getattr(each, "tags", "") == _UID for each in wrappers):
            wrappers.append(tag)

    tag.tags = _UID  # type: ignore[attr-defined]  # tells it from other wrappers
    if tagger.is_on:
        connection_created.connect(add_to, weak=False, dispatch_uid=_UID)
        for connection in connections.all(initialized_only=True):
            add_to(connection)


class TagMiddleware:
    """Django middleware, for synchronous and asynchronous requests."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        install_django_tags(application=getattr(settings, "PGWATCH_SESSIONS_APPLICATION", "django"))

    def __call__(self, request: Any) -> Any:
        """Handle a request with its tags."""
        return self._handle_async(request) if self._is_async else self._handle(request)

    def process_view(self, request: Any, view: Any, _arguments: object, _named: object) -> None:
        """Note the route and the view, once Django has found them."""
        match = request.resolver_match
        request.pgwatch_sessions_tags["route"] = "/" + _CONVERTER.sub(r"{\1}", match.route).lstrip("/^")
        request.pgwatch_sessions_tags["controller"] = match.view_name or getattr(view, "__qualname__", "")

    def _handle(self, request: Any) -> Any:
        token = begin(_tags_of(request))
        try:
            return self._get_response(request)
        finally:
            end(token)

    async def _handle_async(self, request: Any) -> Any:
        token = begin(_tags_of(request))
        try:
            return await self._get_response(request)
        finally:
            end(token)


def _tags_of(request: Any) -> Callable[[], dict[str, str]]:
    """Return a source of tags that does not keep the request alive."""
    values: dict[str, str] = {}
    request.pgwatch_sessions_tags = values
    return lambda: values
