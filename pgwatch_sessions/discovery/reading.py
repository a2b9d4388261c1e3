"""Reads the targets of one source: files in the format of file_sd, or a URL in that of http_sd."""

import base64
import glob
import http.client
import ssl
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from pgwatch_sessions.discovery.target_groups import MAX_BYTES, FoundTarget, SourceError, read_groups
from pgwatch_sessions.settings.model import ServersFromSettings
from pgwatch_sessions.settings.secret_files import explained, explained_secret, read_secret

#: How many seconds one read of a URL may wait for the server.
_HTTP_SECONDS = 10.0


def read_source(source: ServersFromSettings) -> tuple[FoundTarget, ...]:
    """Return the targets. Blocks for as long as the files or the HTTP server take. Raises SourceError."""
    if source.http_sd is not None:
        return read_groups(_fetched(source.http_sd, source), source.http_sd)
    return tuple(target for pattern in source.file_sd for path in _matching(pattern) for target in _of_file(path))


def _matching(pattern: str) -> list[str]:
    paths = sorted(glob.glob(pattern))  # noqa: PTH207  # Path.glob takes no absolute pattern
    if not paths and not glob.has_magic(pattern):
        raise SourceError(f"{pattern} does not exist")
    return paths


def _of_file(path: str) -> tuple[FoundTarget, ...]:
    if not Path(path).is_file():  # reading a pipe would block
        raise SourceError(f"{path} is not a regular file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SourceError(explained(error)) from None
    return read_groups(content, path, is_yaml=path.endswith((".yml", ".yaml")))


def _fetched(url: str, source: ServersFromSettings) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310  # checked to be HTTP
    if authorization := _authorization(source):
        # Not sent again to where a redirect leads.
        request.add_unredirected_header("Authorization", authorization)
    try:
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_tls(source)), _SameHost(url))
        with opener.open(request, timeout=_HTTP_SECONDS) as answer:
            content: bytes = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise SourceError(f"{url} answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"{url}: {getattr(error, 'reason', None) or str(error) or type(error).__name__}") from None
    return content


def _authorization(source: ServersFromSettings) -> str:
    """Return the header that logs in; empty if no login is set. The files are read each time."""
    try:
        if source.authorization is not None:
            return f"Bearer {read_secret(source.authorization.credentials_file)}"
        if source.basic_auth is not None:
            login = f"{source.basic_auth.username}:{read_secret(source.basic_auth.password_file)}"
            return f"Basic {base64.b64encode(login.encode()).decode()}"
    except OSError as error:
        raise SourceError(explained_secret(error)) from None
    return ""


def _tls(source: ServersFromSettings) -> ssl.SSLContext:
    files = source.tls_config
    context = ssl.create_default_context(cafile=files.ca_file if files else None)
    if files and files.cert_file:
        context.load_cert_chain(files.cert_file, files.key_file)
    return context


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to the host that was asked: the answer decides which servers are connected to."""

    def __init__(self, url: str) -> None:
        self._origin = urlsplit(url)[:2]

    def redirect_request(  # noqa: PLR0917  # the library's signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request that follows the redirect."""
        if urlsplit(newurl)[:2] != self._origin:
            raise SourceError(f"{req.full_url} redirects to another host; write the URL that it leads to")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
