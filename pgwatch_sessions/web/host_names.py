"""Which names the page and its JSON are answered under: what keeps pages of others out of them.

A page in somebody's browser may give its own name the address 127.0.0.1 (DNS rebinding). The browser then lets it read
what this server answers. But it sends the page's name as Host, so a request under a foreign name is refused.
"""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pgwatch_sessions.web.app import Guard

#: They show no statement. Prometheus and probes use any name.
_OPEN_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})
_HOST = re.compile(r"(?P<name>\[[^\[\]]*\]|[^\[\]:]*)(?::\d*)?")

_refuse = PlainTextResponse(
    "This address is answered only under the names of this machine, such as localhost, because no login is needed. "
    "To open it under another name, add the name to the setting allowed_hosts.\n",
    status_code=421,
)


def is_loopback(host: str) -> bool:
    """Return whether this is a name or an address that only this machine reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_guard(allowed: Iterable[str], *, needed: Callable[[], bool] = lambda: True) -> Guard:
    """Return middleware that refuses requests under other names than those of loopback and `allowed`, shell patterns.

    An empty pattern, such as the host of `:9488`, allows nothing.

    `needed` tells at each request whether names matter now: they do not if clients must log in.
    """
    patterns = [_without_brackets(pattern.lower()) for pattern in allowed if pattern]

    def is_allowed(host: str | None) -> bool:
        if host is None:  # no browser leaves it out
            return True
        match = _HOST.fullmatch(host.lower())
        name = _without_brackets(match["name"].removesuffix(".")) if match else ""
        return is_loopback(name) or any(fnmatchcase(name, pattern) for pattern in patterns)

    def guard(app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            let_in = scope["path"] in _OPEN_PATHS or not needed() or is_allowed(Headers(scope=scope).get("host"))
            await (app if let_in else _refuse)(scope, receive, send)

        return guarded

    return guard


def _without_brackets(name: str) -> str:
    """Return an IPv6 address without its brackets, which would be a set of characters in a pattern."""
    return name.strip("[]") if ":" in name else name
