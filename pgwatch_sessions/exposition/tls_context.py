"""What the web configuration says of TLS, as Python's ssl can do it.

What it cannot do exactly is refused, and what comes nearest is named: half of what somebody asked for would look like
all of it.
"""

import errno
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType
from typing import Any

from pgwatch_sessions.settings.secret_files import explained

_LARGEST_FILE = 4 * 2**20
#: Of the names that a certificate may have, those that can be allowed, as Python's ssl calls them.
_SAN_KINDS = frozenset({"DNS", "IP Address", "email", "URI"})

VERSIONS: Mapping[str, ssl.TLSVersion] = MappingProxyType(
    {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
)
#: None where Python's ssl has no such thing: it verifies every certificate that it asks for.
CLIENT_AUTH_TYPES: Mapping[str, ssl.VerifyMode | None] = MappingProxyType(
    {
        "NoClientCert": ssl.CERT_NONE,
        "RequestClientCert": None,
        "RequireAnyClientCert": None,
        "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
        "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
    }
)
#: OpenSSL's names by those of Go. The suites of TLS 1.3 are always on: neither Go nor Python lets one choose.
CIPHER_SUITES: Mapping[str, str | None] = MappingProxyType(
    {
        "TLS_AES_128_GCM_SHA256": None,
        "TLS_AES_256_GCM_SHA384": None,
        "TLS_CHACHA20_POLY1305_SHA256": None,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    }
)
CURVES: Mapping[str, str] = MappingProxyType(
    {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
)


class UnusableError(Exception):
    """A file that TLS needs is not what it should be; the message says which, why and what to do."""

    def __init__(self, name: str, message: str) -> None:
        """`name` is that of the setting which names the file."""
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What is read for TLS."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None


def problems(files: TlsFiles) -> Iterator[tuple[str, str]]:
    """Yield the name of each file that cannot be used, with path, reason and what to do; nothing of what it holds."""
    kinds = {
        "cert_file": ("CERTIFICATE-----", "certificate"),
        "key_file": ("PRIVATE KEY-----", "private key"),
        "client_ca_file": ("CERTIFICATE-----", "certificate"),
    }
    for name, (mark, kind) in kinds.items():
        file: Path | None = getattr(files, name)
        if file is None:
            continue
        try:
            text = _text(file)
        except OSError as error:
            yield name, explained(error)
            continue
        if mark not in text:
            yield name, f"cannot use {file}: it holds no {kind} in PEM (-----BEGIN ... {mark})"
        elif name == "key_file" and "ENCRYPTED" in text:
            advice = f"write it without one: openssl pkey -in {file} -out FILE"
            yield name, f"cannot use {file}: it is encrypted, and nobody is there to give its password; {advice}"


def context_of(
    files: TlsFiles,
    *,
    client_auth: ssl.VerifyMode,
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion],
    ciphers: tuple[str, ...],
    curve: str | None,
    server_chooses: bool,
) -> ssl.SSLContext:
    """Return what connections are wrapped with; UnusableError when files without `problems` have one nevertheless."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = versions
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if server_chooses:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if ciphers:
        context.set_ciphers(":".join(ciphers))
    if curve:
        context.set_ecdh_curve(curve)
    context.set_alpn_protocols(["http/1.1"])
    _load(context, files)
    context.verify_mode = client_auth
    return context


def allows(sans: Iterable[str]) -> Callable[[ssl.SSLObject], bool]:
    """Return a function that tells whether a client's certificate has one of these names; all will do without any."""
    allowed = frozenset(map(_canonical, sans))

    def admits(tls: ssl.SSLObject) -> bool:
        names: Any = (tls.getpeercert() or {}).get("subjectAltName", ())
        return not allowed or any(kind in _SAN_KINDS and _canonical(name) in allowed for kind, name in names)

    return admits


def _canonical(name: str) -> str:
    """Write addresses, which OpenSSL writes in a way of its own, in the one way."""
    try:
        return str(ip_address(name.strip()))
    except ValueError:
        return name


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    cert, key, client_ca = files.cert_file, files.key_file, files.client_ca_file
    try:
        context.load_cert_chain(cert, key, password="")  # without one, OpenSSL would ask the terminal, and wait
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise UnusableError("key_file", f"the key in {key} does not fit the certificate in {cert}") from None
        raise UnusableError("cert_file", f"cannot use {cert} with {key}: {_reason(error)}") from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            raise UnusableError("client_ca_file", f"cannot use {client_ca}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"OpenSSL says {error.reason}" if error.reason else "OpenSSL does not understand what it holds"
    return error.strerror or "it cannot be read"  # it vanished just now


def check_file(file: Path, largest: int) -> None:
    """Raise OSError unless it is a file of so many bytes at most; any other may keep the daemon waiting."""
    status = file.stat()
    if not S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(file))
    if status.st_size > largest:
        raise OSError(errno.EFBIG, f"is larger than {largest // 1024} KiB", str(file))


def _text(file: Path) -> str:
    check_file(file, _LARGEST_FILE)
    return file.read_bytes().decode("ascii", "replace")
