"""Reads JSON documents from a running daemon, over HTTP or HTTPS."""

import base64
import json
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, urlencode, urlsplit

from pgwatch_sessions.top.view import Document

#: The deadline of each read and write, in seconds.
_SECONDS = 5.0
#: A thousand findings with all their sessions are about 4 MB.
_MAX_BYTES = 32 * 1024 * 1024
_DEFAULT_PORT = 9488


class SourceError(Exception):
    """What the view needs cannot be read: what is wrong, where, and what to do, in one line."""


class LoginError(SourceError):
    """The daemon requires a password, or rejects the one that it was given."""


class DaemonApi:
    """The API of one daemon. Proxies of the environment are not used."""

    def __init__(self, url: str, login: str | None = None) -> None:
        """`login` is NAME:PASSWORD. Raises ValueError if the URL is invalid."""
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{_without_login(parts)} is no URL of a daemon; write it as http://127.0.0.1:9488")
        if "@" in parts.netloc:
            raise ValueError("a login in the URL is visible to all users of this machine; use --login-file")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or _DEFAULT_PORT
        self._path = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{_bracketed(self._host)}:{self._port}{self._path}"
        self._headers = {"Accept": "application/json"}
        if login is not None:
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"

    def documents(self, requests: Mapping[str, Mapping[str, str]]) -> Mapping[str, Document]:
        """Return each document, by its name, for its parameters. Blocks; SourceError if one cannot be had."""
        connection = self._connection()
        try:
            return {name: self._document(connection, name, parameters) for name, parameters in requests.items()}
        except ssl.SSLError as error:
            raise SourceError(
                f"{self.url}: TLS: {error.reason or error}; SSL_CERT_FILE names a file of further authorities"
            ) from error
        except TimeoutError as error:
            raise SourceError(f"{self.url} does not answer within {_SECONDS:.0f} s") from error
        except (OSError, HTTPException, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise SourceError(f"{self.url} does not answer: {reason[:1].lower()}{reason[1:]}") from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        if self._secure:
            return HTTPSConnection(self._host, self._port, timeout=_SECONDS, context=ssl.create_default_context())
        return HTTPConnection(self._host, self._port, timeout=_SECONDS)

    def _document(self, connection: HTTPConnection, name: str, parameters: Mapping[str, str]) -> Document:
        query = f"?{urlencode(parameters)}" if parameters else ""
        connection.request("GET", f"{self._path}/api/v1/{name}{query}", headers=self._headers)
        with connection.getresponse() as response:
            body = response.read(_MAX_BYTES)
        if response.status == 401:
            wrong = "rejects this login" if "Authorization" in self._headers else "requires a login"
            raise LoginError(f"{self.url} {wrong} (401); give a file with one line NAME:PASSWORD with --login-file")
        if response.status != 200:
            raise SourceError(
                f"{self.url}/api/v1/{name} answers with status {response.status}; is it pgwatch-sessions?"
            )
        try:
            document: Document = json.loads(body)
        except ValueError as error:
            raise SourceError(f"{self.url}/api/v1/{name} is no JSON; is it pgwatch-sessions?") from error
        return document


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_login(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
