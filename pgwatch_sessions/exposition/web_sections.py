"""The sections of a web configuration: what each may hold, and what does not fit together in one."""

import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel

from pgwatch_sessions.exposition.tls import Tls
from pgwatch_sessions.exposition.tls_context import (
    CIPHER_SUITES,
    CLIENT_AUTH_TYPES,
    CURVES,
    VERSIONS,
    TlsFiles,
    allows,
    context_of,
)

#: bcrypt's own bounds are 4 and 31; each step doubles the time, and 13 takes about a second.
_DEAREST = 13
#: Kind, cost, a salt of 128 bits, whose last letter holds two of them, and the digest.
_HASH = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_HEADER_TEXT = re.compile(r"[\t\x20-\x7e]*")
_REQUIRED = "RequireAndVerifyClientCert"


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


def _path(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must be the path of a file, of printable characters")
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
_File = Annotated[_Name, AfterValidator(_path)]
_Line = Annotated[str, AfterValidator(_one_line)]


class TlsServer(BaseModel):
    """What TLS is spoken with, and with whom."""

    model_config = _STRICT

    cert_file: _File
    key_file: _File
    client_ca_file: _File = ""
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

    def demands(self) -> tuple[str, ...]:
        """Return what clients have to bring or bear, by names for people."""
        certificates = ("clients' certificates",) if self.client_auth_type == _REQUIRED else ()
        names = ("client_allowed_sans",) if self.client_allowed_sans else ()
        return ("TLS", *certificates, *names)

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


class Headers(BaseModel):
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


class Http(BaseModel):
    """What HTTP is spoken, and the headers of its answers."""

    model_config = _STRICT

    http2: Annotated[bool, AfterValidator(_no_http2)] = False
    headers: Headers = Headers.model_validate({})


class Users(RootModel[dict[Annotated[str, AfterValidator(_user)], Annotated[str, AfterValidator(_bcrypt)]]]):
    """Hashes by user."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, strict=True)


SECTIONS: Mapping[str, type[BaseModel]] = {
    "tls_server_config": TlsServer,
    "http_server_config": Http,
    "basic_auth_users": Users,
}
