"""Shows pools and borrowers as JSON over HTTP, by an ASGI application.

    app.mount("/debug/pools", pools_app)      # Starlette, FastAPI

`GET /debug/pools?older_than=30` leaves out who has had a connection for less than 30 s. The answer names lines of code
and tags: do not show it to strangers.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from pgwatch_sessions.pools.report import report

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def pools_app(scope: Scope, _: Receive, send: Send) -> None:
    """Answer a request of HTTP."""
    if scope["type"] != "http":
        raise ValueError(f"the pools are shown over HTTP only, not over {scope['type']}")
    if scope["method"] not in {"GET", "HEAD"}:
        await _answer(send, 405, {"error": "use GET"}, head=False)
        return
    head = scope["method"] == "HEAD"
    given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("older_than", ["0"])[-1]
    try:
        older_than = float(given)
    except ValueError:
        await _answer(send, 400, {"error": f"older_than={given}: use a number of seconds"}, head=head)
        return
    await _answer(send, 200, report(older_than), head=head)


async def _answer(send: Send, status: int, document: dict[str, Any], *, head: bool) -> None:
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
