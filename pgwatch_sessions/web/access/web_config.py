"""The web configuration file, in the layout of Prometheus' exporter-toolkit: TLS and passwords.

All mistakes are reported together, each with its line but without the value, which may be a secret.
"""

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgwatch_sessions.settings.errors import SettingError, SettingsError, not_a_setting
from pgwatch_sessions.settings.sources import Layer, from_file
from pgwatch_sessions.settings.stamps import Stamp, stamp
from pgwatch_sessions.web.access.tls import TlsFilesError, tls_context

_MAX_BYTES = 64 * 1024
#: bcrypt knows costs from 4 to 31. Each step doubles the time; 13 takes about a second.
_MAX_COST = 13
#: Kind, cost, 22 letters of salt, of which the last has four possible values, and 31 letters of digest.
_BCRYPT = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
#: The settings of TLS: None for the path of a file, otherwise the values to choose from.
_TLS: Mapping[str, Mapping[str, object] | None] = {
    **dict.fromkeys(("cert_file", "key_file", "client_ca_file")),
    "client_auth_type": _CLIENT_AUTH,
    "min_version": _VERSIONS,
}
_USE_PROXY = "is not supported; put a reverse proxy such as nginx in front"
#: Names that exporter-toolkit knows and this program does not. The content of the first three can be put into files.
_INLINE = ("cert", "key", "client_ca")
_NOT_SUPPORTED = (
    *("RequestClientCert", "RequireAnyClientCert", "client_allowed_sans", "max_version", "cipher_suites"),
    *("curve_preferences", "prefer_server_cipher_suites", "http_server_config", "rate_limit"),
)

#: For each mistake, the path of the setting in the file, and what is wrong.
_Mistakes = Iterator[tuple[tuple[str, ...], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """What the file asks for, with its certificates loaded."""

    #: None is plain HTTP.
    tls: ssl.SSLContext | None
    #: bcrypt hashes by user; no password is needed if there are none.
    users: Mapping[str, str]
    #: What keeps clients out, named for a message.
    protections: frozenset[str]
    #: The stamps of all files, taken before they were read.
    stamps: Mapping[Path, Stamp]
    #: The files that only the daemon should read, each with what it holds.
    secret_files: tuple[tuple[Path, str], ...]


def load_web_config(path: Path) -> WebConfig:
    """Read the file and, if it is right, the files that it names; raise SettingsError with every mistake."""
    stamps = {path: stamp(path)}
    layer = from_file(path, place="web_config", max_bytes=_MAX_BYTES)
    errors = [*layer.errors, *(_error(layer, place, text) for place, text in _mistakes(layer.values))]
    if not layer.values and not errors:
        errors.append(_error(layer, (), "is empty; give it tls_server_config or basic_auth_users"))
    if errors:
        raise SettingsError(tuple(errors))
    section, users = layer.values.get("tls_server_config", {}), layer.values.get("basic_auth_users", {})
    files = {name: path.parent / value for name, value in section.items() if _TLS[name] is None}
    stamps |= {file: stamp(file) for file in files.values()}
    client_auth, min_version = section.get("client_auth_type", "NoClientCert"), section.get("min_version", "TLS12")
    try:
        tls = tls_context(files, _CLIENT_AUTH[client_auth], _VERSIONS[min_version]) if files else None
    except TlsFilesError as error:
        mistakes = ((("tls_server_config", name), text) for name, text in error.messages.items())
        raise SettingsError(tuple(_error(layer, place, text) for place, text in mistakes)) from None
    protections = {
        "TLS": bool(section),
        "TLS13": min_version == "TLS13",
        "RequireAndVerifyClientCert": client_auth == "RequireAndVerifyClientCert",
        "passwords": bool(users),
    }
    switched_on = frozenset(name for name, is_on in protections.items() if is_on)
    secret_files = [(path, "password hashes")] if users else []
    secret_files += [(files["key_file"], "a private key")] if files else []
    return WebConfig(tls=tls, users=users, protections=switched_on, stamps=stamps, secret_files=tuple(secret_files))


def _error(layer: Layer, path: tuple[str, ...], message: str) -> SettingError:
    return SettingError(place=layer.place(path), message=message)


def _mistakes(file: Mapping[str, Any]) -> _Mistakes:
    checks = {"tls_server_config": _tls_mistakes, "basic_auth_users": _user_mistakes}
    for name, section in file.items():
        if name not in checks:
            yield (name,), _unknown(name, checks)
        elif not isinstance(section, dict) or not section:
            yield (name,), "must be a mapping with at least one entry"
        else:
            yield from (((name, *path), message) for path, message in checks[name](section))


def _tls_mistakes(section: Mapping[Any, Any]) -> _Mistakes:
    for name, value in section.items():
        if name not in _TLS:
            yield (str(name),), _unknown(str(name), _TLS)
        elif choices := _TLS[name]:
            if value not in list(choices):
                one_of = f"must be one of {', '.join(choices)}"
                yield (name,), f"{value} {_USE_PROXY}" if value in _NOT_SUPPORTED else one_of
        elif not isinstance(value, str) or not value or not value.isprintable():
            yield (name,), "must be the path of a file, as text"
    for name in ("cert_file", "key_file"):
        if name not in section:
            yield (), f"{name} is missing"
    client_auth = section.get("client_auth_type", "NoClientCert")
    if client_auth in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert") and "client_ca_file" not in section:
        yield ("client_auth_type",), "needs client_ca_file, the authority that signs the clients' certificates"
    if client_auth == "NoClientCert" and "client_ca_file" in section:
        yield ("client_ca_file",), "has no effect; add client_auth_type: RequireAndVerifyClientCert"


def _user_mistakes(users: Mapping[Any, Any]) -> _Mistakes:
    for user, bcrypt_hash in users.items():
        match = _BCRYPT.fullmatch(str(bcrypt_hash))
        if not isinstance(user, str) or not user.isprintable() or not user or ":" in user:
            yield (str(user),), "is not a user name: it must be printable text without a colon; put it in quotes"
        if match is None:
            yield (str(user),), "is not a bcrypt hash; make one with `htpasswd -nBC 10 NAME`"
        elif not 4 <= int(match[1]) <= _MAX_COST:
            yield (str(user),), f"has a cost of {match[1]}; make a hash with a cost from 4 to {_MAX_COST}, such as 10"


def _unknown(name: str, known: Iterable[str]) -> str:
    if name in _INLINE:
        return f"is not supported; write it to a file and name the file in {name}_file"
    if name in _NOT_SUPPORTED:
        return _USE_PROXY
    return not_a_setting(name, known)
