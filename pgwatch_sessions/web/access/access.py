"""Who is let in, by the web configuration as it is now.

The files are checked for changes at each connection and each request, and loaded again if one has changed. If they
cannot be used, that is logged once and the former configuration stays in use. A file that is being written may look
as if TLS or passwords were no longer wanted. So a change may add protection, but only a restart removes any.
"""

import asyncio
import base64
import math
import ssl
import time
from pathlib import Path

import structlog
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pgwatch_sessions.logs import log_line
from pgwatch_sessions.settings.errors import SettingError, SettingsError
from pgwatch_sessions.settings.stamps import stamp
from pgwatch_sessions.web.access.failed_logins import FailedLogins
from pgwatch_sessions.web.access.logins import Logins, TooManyLoginsError
from pgwatch_sessions.web.access.web_config import WebConfig, load_web_config
from pgwatch_sessions.wording.event_lines import web_config_failed_line, web_config_reloaded_line

#: Probes have no password, and learn only whether the daemon is well.
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})
#: A configuration that could not be used is tried again after so many seconds, even if no file changes.
_RETRY_SECONDS = 1.0
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="pgwatch-sessions", charset="UTF-8"'}


class Access:
    """The web configuration in use."""

    def __init__(self, path: Path) -> None:
        """Load it; raise SettingsError if it cannot be used."""
        self._path = path
        self._config = load_web_config(path)
        self._logins = _logins(self._config)
        self._stamps = self._config.stamps
        self._retry_at = math.inf
        self._logged_failure = ""
        self._log = structlog.get_logger()
        self.failed_logins = FailedLogins(lambda *call: asyncio.get_running_loop().call_later(*call))

    @property
    def scheme(self) -> str:
        """Return how addresses begin. It never changes."""
        return "https" if self._config.tls else "http"

    @property
    def secret_files(self) -> tuple[tuple[Path, str], ...]:
        """Return the files that only the daemon should read, each with what it holds."""
        return self._config.secret_files

    def asks_for_login(self) -> bool:
        """Return whether every client needs a password or a certificate."""
        return bool({"passwords", "RequireAndVerifyClientCert"} & self._config.protections)

    def tls(self) -> ssl.SSLContext | None:
        """Return the context for the next connection; None for plain HTTP."""
        self._reload_if_changed()
        return self._config.tls

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return middleware that lets a request through to the application if its user and password are right."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            refusal = await self._refusal(scope)
            await (refusal or app)(scope, receive, send)

        return guarded

    async def _refusal(self, scope: Scope) -> Response | None:
        self._reload_if_changed()
        if self._logins is None or scope["path"] in _OPEN_PATHS:
            return None
        credentials = _credentials(Headers(scope=scope).getlist("authorization"))
        address, _ = scope["client"] or ("", 0)
        try:
            if credentials:
                if await self._logins.check(*credentials, address=address):
                    return None
                self.failed_logins.add(address)
        except TooManyLoginsError:
            text = "Too many logins at once; try again in a second.\n"
            return PlainTextResponse(text, status_code=429, headers={"Retry-After": "1"})
        return PlainTextResponse("A user and a password are needed.\n", status_code=401, headers=_CHALLENGE)

    def _reload_if_changed(self) -> None:
        stamps = {path: stamp(path) for path in self._stamps}
        now = time.monotonic()
        if stamps == self._stamps and now < self._retry_at:
            return
        self._stamps = stamps
        try:
            config = load_web_config(self._path)
            _check_change(self._path, self._config, config)
        except SettingsError as error:
            self._retry_at = now + _RETRY_SECONDS
            if str(error) != self._logged_failure:
                self._logged_failure = str(error)
                errors = [str(each) for each in error.errors]
                log_line(self._log, "web_config_failed", web_config_failed_line(errors), {"errors": errors})
            return
        if config.users != self._config.users:
            self._logins = _logins(config)
        self._config, self._stamps = config, config.stamps
        self._retry_at, self._logged_failure = math.inf, ""
        path = str(self._path)
        log_line(self._log, "web_config_reloaded", web_config_reloaded_line(path), {"path": path})


def _logins(config: WebConfig) -> Logins | None:
    return Logins(config.users) if config.users else None


def _check_change(path: Path, before: WebConfig, after: WebConfig) -> None:
    """Raise SettingsError if the change removes protection, or turns HTTP into HTTPS, which would break all clients."""
    refused = [f"removes {each}" for each in sorted(before.protections - after.protections)]
    if after.tls and not before.tls:
        refused.append("adds TLS")
    if refused:
        text = "{}, which takes effect only after a restart"
        raise SettingsError(tuple(SettingError(place=str(path), message=text.format(each)) for each in refused))


def _credentials(headers: list[str]) -> tuple[bytes, bytes] | None:
    """Return user and password of the one Authorization header; None if it is missing, repeated or not valid."""
    if len(headers) != 1:
        return None
    scheme, _, encoded = headers[0].strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:  # not base64, or not ASCII
        return None
    return (user, password) if colon else None
