"""The web configuration: TLS, users and headers, in the layout that Prometheus' exporters share.

Checked as a whole and loaded as a whole, certificates included: what comes out can be used at once.
"""

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError
from pydantic_core import ErrorDetails

from pgwatch_sessions.exposition.http_server import Tls
from pgwatch_sessions.exposition.tls_context import (
    CIPHER_SUITES,
    CLIENT_AUTH_TYPES,
    CURVES,
    VERSIONS,
    TlsFiles,
    UnusableError,
    allows,
    context_of,
    problems,
)
from pgwatch_sessions.settings.errors import SettingError, SettingsError, not_a_setting
from pgwatch_sessions.settings.sources import Layer, from_file

#: bcrypt's own bounds are 4 and 31; each step doubles the time, and 13 takes about a second.
_DEAREST = 13
_HASH = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_HEADER_TEXT = re.compile(r"[\t\x20-\x7e]*")
_REQUIRED = "RequireAndVerifyClientCert"
_EMPTY = "is empty; fill it or remove it"
#: What the layout has and we have not, and what to do instead.
_NOT_HERE: Mapping[tuple[str | int, ...], str] = {
    ("tls_server_config", "cert"): "is not read here; write the certificate into a file and name it as cert_file",
    ("tls_server_config", "key"): "is not read here; write the key into a file and name it as key_file",
    ("tls_server_config", "client_ca"): "is not read here; write it into a file and name it as client_ca_file",
    ("rate_limit",): "is not known here; remove it: connections, their time and logins are bounded without it",
}


Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """Who may ask, and how."""

    #: None is plain HTTP.
    tls: Tls | None
    asks_for_certificates: bool
    #: bcrypt hashes by user; everybody may ask when empty.
    users: Mapping[str, str]
    headers: Mapping[str, str]
    #: What was read, as it was just before.
    stamps: Mapping[Path, Stamp]


def stamp_of(file: Path) -> Stamp:
    """Return what changes whenever the file does; None when it cannot be looked at."""
    try:
        status = os.stat(file)  # noqa: PTH116  # at each request, so without a detour
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def load_web_config(path: Path) -> WebConfig:
    """Read the file and what it names; SettingsError with every mistake there is, and nothing secret in it."""
    stamps = {path: stamp_of(path)}
    layer = from_file(path, place="web_config")
    sections, errors = _sections(layer)
    found = [*layer.errors, *errors]
    if not layer.values and not found:
        found.append(SettingError(place=str(path), message="is empty; give it tls_server_config or basic_auth_users"))
    wanted, tls = sections.get("tls_server_config"), None
    if isinstance(wanted, _TlsServer):
        files = wanted.files(path.parent)
        read = (files.cert_file, files.key_file, files.client_ca_file)
        stamps |= {file: stamp_of(file) for file in read if file is not None}
        mistakes = [*wanted.misfits(), *problems(files)]
        try:
            tls = None if mistakes else wanted.tls(files)
        except UnusableError as error:
            mistakes = [(error.name, str(error))]
        found += [SettingError(place=layer.place(("tls_server_config", name)), message=text) for name, text in mistakes]
    if found:
        raise SettingsError(tuple(found))
    users, http = sections.get("basic_auth_users"), sections.get("http_server_config")
    return WebConfig(
        tls=tls,
        asks_for_certificates=isinstance(wanted, _TlsServer) and wanted.client_auth_type == _REQUIRED,
        users=users.root if isinstance(users, _Users) else {},
        headers=http.headers.set_ones() if isinstance(http, _Http) else {},
        stamps=stamps,
    )


def _sections(layer: Layer) -> tuple[dict[str, BaseModel], list[SettingError]]:
    """Check each section by itself, so that the mistakes of one hide nothing of another."""
    sections: dict[str, BaseModel] = {}
    found = []
    for name, value in layer.values.items():
        if name not in _SECTIONS:
            message = _NOT_HERE.get((name,)) or not_a_setting(name, _SECTIONS)
            found.append(SettingError(place=layer.place((name,)), message=message))
        elif not value:  # half written, it must not open what is closed
            found.append(SettingError(place=layer.place((name,)), message=_EMPTY))
        else:
            try:
                sections[name] = _SECTIONS[name].model_validate(value)
            except ValidationError as invalid:
                found += [_explained(error, name, layer) for error in invalid.errors(include_url=False)]
    return sections, found


def _one_of(known: Mapping[str, object]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return name

    return AfterValidator(check)


def _possible(name: str) -> str:
    if CLIENT_AUTH_TYPES[name] is None:
        raise ValueError(
            "asks for certificates without verifying them, which Python's ssl cannot do; write "
            f"{_REQUIRED}, or VerifyClientCertIfGiven, with client_ca_file"
        )
    return name


def _version(name: str) -> str:
    if name in {"TLS10", "TLS11"}:
        raise ValueError("is too old to be spoken here; write TLS12 or TLS13")
    if name not in VERSIONS:
        raise ValueError("must be TLS12 or TLS13")
    return name


def _bcrypt(text: str) -> str:
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("is no bcrypt hash, such as `htpasswd -nBC 10 NAME` prints; never write the password itself")
    if not 4 <= int(match[1]) <= _DEAREST:
        raise ValueError(f"has a cost of {int(match[1])}; make the hash with one from 4 to {_DEAREST}, such as 10")
    return text


def _user(name: str) -> str:
    if not name or ":" in name or not name.isprintable():
        raise ValueError("is a name that nobody can log in by: it is empty, has a colon, or what cannot be printed")
    return name


def _no_http2(wanted: bool) -> bool:  # pydantic passes by position
    if wanted:
        raise ValueError("asks for HTTP/2, which is not spoken here; write false, or leave it out")
    return wanted


def _one_line(text: str) -> str:
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError("must be one line of ASCII")
    return text


_STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, strict=True)
_Name = Annotated[str, Field(min_length=1)]
_Line = Annotated[str, AfterValidator(_one_line)]


class _TlsServer(BaseModel):
    model_config = _STRICT

    cert_file: _Name
    key_file: _Name
    client_ca_file: _Name = ""
    client_auth_type: Annotated[str, _one_of(CLIENT_AUTH_TYPES), AfterValidator(_possible)] = "NoClientCert"
    client_allowed_sans: Annotated[list[_Name], Field(min_length=1)] = []
    min_version: Annotated[str, AfterValidator(_version)] = "TLS12"
    max_version: Annotated[str, AfterValidator(_version)] = "TLS13"
    cipher_suites: list[Annotated[str, _one_of(CIPHER_SUITES)]] = []
    curve_preferences: list[Annotated[str, _one_of(CURVES)]] = []
    prefer_server_cipher_suites: bool = True

    def misfits(self) -> Iterator[tuple[str, str]]:
        """Yield the names of settings that do not fit the others, with what to do."""
        verifies = self.client_auth_type != "NoClientCert"
        if verifies and not self.client_ca_file:
            yield "client_auth_type", "needs client_ca_file, the authority that clients' certificates come from"
        if self.client_ca_file and not verifies:
            yield "client_ca_file", f"has no use; write client_auth_type: {_REQUIRED} as well"
        if self.client_allowed_sans and self.client_auth_type != _REQUIRED:
            yield "client_allowed_sans", f"needs client_auth_type: {_REQUIRED}"
        if self.min_version > self.max_version:
            yield "min_version", "is above max_version"
        if self.cipher_suites and self.min_version == "TLS12" and not self._ciphers():
            yield "cipher_suites", "has no suite of TLS 1.2; add one, or write min_version: TLS13"
        if len(self.curve_preferences) > 1:
            yield "curve_preferences", "has several curves, of which Python's ssl takes one; keep one, or leave it out"

    def files(self, folder: Path) -> TlsFiles:
        """Return what is read; relative paths are relative to the folder."""
        return TlsFiles(
            cert_file=folder / self.cert_file,
            key_file=folder / self.key_file,
            client_ca_file=folder / self.client_ca_file if self.client_ca_file else None,
        )

    def tls(self, files: TlsFiles) -> Tls:
        """Load the files; UnusableError when one cannot be used."""
        context = context_of(
            files,
            client_auth=CLIENT_AUTH_TYPES[self.client_auth_type] or ssl.CERT_NONE,
            versions=(VERSIONS[self.min_version], VERSIONS[self.max_version]),
            ciphers=self._ciphers(),
            curve=CURVES[self.curve_preferences[0]] if self.curve_preferences else None,
            server_chooses=self.prefer_server_cipher_suites,
        )
        return Tls(context=context, admits=allows(self.client_allowed_sans))

    def _ciphers(self) -> tuple[str, ...]:
        return tuple(filter(None, (CIPHER_SUITES[name] for name in self.cipher_suites)))


class _Headers(BaseModel):
    """The headers that may be set; an empty one is as good as none."""

    model_config = _STRICT

    csp: _Line = Field("", alias="Content-Security-Policy")
    hsts: _Line = Field("", alias="Strict-Transport-Security")
    content_type: Literal["", "nosniff"] = Field("", alias="X-Content-Type-Options")
    frame: Literal["", "deny", "sameorigin"] = Field("", alias="X-Frame-Options")
    xss: _Line = Field("", alias="X-XSS-Protection")

    def set_ones(self) -> Mapping[str, str]:
        """Return the headers that are set."""
        return {name: value for name, value in self.model_dump(by_alias=True).items() if value}


class _Http(BaseModel):
    model_config = _STRICT

    http2: Annotated[bool, AfterValidator(_no_http2)] = False
    headers: _Headers = _Headers.model_validate({})


class _Users(RootModel[dict[Annotated[str, AfterValidator(_user)], Annotated[str, AfterValidator(_bcrypt)]]]):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, strict=True)


_SECTIONS: Mapping[str, type[BaseModel]] = {
    "tls_server_config": _TlsServer,
    "http_server_config": _Http,
    "basic_auth_users": _Users,
}
_MESSAGES = {
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "too_short": _EMPTY,
    "string_too_short": _EMPTY,
}


def _explained(error: ErrorDetails, section: str, layer: Layer) -> SettingError:
    """Say in our words what pydantic found, without the value, which may be a secret."""
    path = (section, *(part for part in error["loc"] if part != "[key]"))
    kind = error["type"]
    if error["loc"][-1:] == ("[key]",) and kind == "string_type":
        return SettingError(
            place=layer.place((section,)), message="has a user whose name is not text; put it in quotes"
        )
    if kind == "missing":
        return SettingError(place=layer.place(path[:-1]), message=f"{path[-1]} is missing")
    if kind == "value_error":
        message = str(error["ctx"]["error"])
    elif kind == "literal_error":
        message = f"must be {error['ctx']['expected'].removeprefix(repr('') + ', ').removeprefix(repr('') + ' or ')}"
    elif kind == "extra_forbidden":
        message = _NOT_HERE.get(path) or not_a_setting(str(path[-1]), _known(path[:-1]))
    else:
        message = _MESSAGES.get(kind, "is not valid")
    return SettingError(place=layer.place(path), message=message)


def _known(section: tuple[str | int, ...]) -> Iterable[str]:
    model = _Headers if section[-1] == "headers" else _SECTIONS[str(section[0])]
    return (field.alias or name for name, field in model.model_fields.items())
