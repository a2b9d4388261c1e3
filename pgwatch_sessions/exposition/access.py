"""Who may ask the web side, by the web configuration as it is now: TLS, passwords and headers.

The files are looked at before each connection and each request, and read again when one has changed. What cannot be
used is told once, and what was in use before stays. A file that is being written in place may look for a moment as if
TLS or passwords were no longer wanted; so a change may close what was open, but never open what was closed.
"""

import base64
import binascii
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

from pgwatch_sessions.exposition.logins import Logins, NotNowError
from pgwatch_sessions.exposition.tls import Tls
from pgwatch_sessions.exposition.web_config import WebConfig, load_web_config, stamp_of
from pgwatch_sessions.settings.errors import SettingError, SettingsError

#: Probes cannot log in, and learn nothing but whether we are well.
_OPEN = frozenset({"/healthz", "/readyz"})
#: How long a configuration that cannot be used is left alone, in seconds, when its own file does not change.
_RETRY = 1.0


class Access:
    """The web configuration in use."""

    def __init__(self, path: Path) -> None:
        """Read it; SettingsError when it cannot be used."""
        self._path = path
        self._config = load_web_config(path)
        self._stamps = self._config.stamps
        self._logins = _logins(self._config.users)
        self._failure: str | None = None
        self._tried = 0.0
        self._log = structlog.get_logger()

    @property
    def scheme(self) -> str:
        """What addresses begin with; it stays what it was at the start."""
        return "http" if self._config.tls is None else "https"

    def tls(self) -> Tls:
        """Return how to speak TLS with the next client; only where the scheme is https."""
        self._poll()
        assert self._config.tls is not None  # noqa: S101  # for the type checker: see above
        return self._config.tls

    def headers(self) -> Mapping[str, str]:
        """Return what each answer carries besides our own."""
        return self._config.headers

    async def refusal(self, path: str, headers: Headers, *, asker: str) -> Response | None:
        """Return the answer to a request of an address that may not pass, None to one that may."""
        self._poll()
        if self._logins is None or path in _OPEN:
            return None
        login = _login(headers.getlist("authorization"))
        try:
            if login is not None and await self._logins.right(*login, asker=asker):
                return None
        except NotNowError:
            text = "Too many logins at once, or the users change; ask again in a second.\n"
            return PlainTextResponse(text, status_code=429, headers={"Retry-After": "1"})
        challenge = {"WWW-Authenticate": 'Basic realm="pgwatch-sessions", charset="UTF-8"'}
        return PlainTextResponse("A user and a password are needed.\n", status_code=401, headers=challenge)

    def close(self) -> None:
        """Let nobody wait any longer."""
        if self._logins is not None:
            self._logins.close()

    def _poll(self) -> None:
        """Use what the files say now, if they have changed and can be used."""
        now = time.monotonic()
        stamps = {file: stamp_of(file) for file in self._stamps}
        if stamps == self._stamps and (self._failure is None or now - self._tried < _RETRY):
            return
        self._stamps, self._tried = stamps, now
        try:
            config = load_web_config(self._path)
            _check_change(self._path, self._config, config)
        except SettingsError as error:
            if str(error) != self._failure:
                self._failure = str(error)
                self._log.error("web_config_failed", errors=[str(each) for each in error.errors])
            return
        self._failure = None
        self._use(config)
        self._log.info("web_config_reloaded", path=str(self._path))

    def _use(self, config: WebConfig) -> None:
        if config.users != self._config.users:
            self.close()
            self._logins = _logins(config.users)
        self._config, self._stamps = config, config.stamps


def _logins(users: Mapping[str, str]) -> Logins | None:
    return Logins(users) if users else None


def _check_change(path: Path, before: WebConfig, after: WebConfig) -> None:
    """Raise SettingsError when the change opens what was closed, or turns HTTP into HTTPS under everybody's feet."""
    switched = [f"{demand} off" for demand in before.demands if demand not in after.demands]
    if after.tls and not before.tls:
        switched.append("TLS on")
    if switched:
        message = "switches {}, for which the daemon has to be restarted"
        raise SettingsError(tuple(SettingError(place=str(path), message=message.format(each)) for each in switched))


def _login(fields: list[str]) -> tuple[bytes, bytes] | None:
    """Return user and password of the Authorization header; None when there is none, or several, or another kind."""
    scheme, _, encoded = fields[0].strip().partition(" ") if len(fields) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None
