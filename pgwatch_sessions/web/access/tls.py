"""The TLS context of the web side, made from PEM files."""

import ssl
from collections.abc import Mapping
from pathlib import Path

from pgwatch_sessions.settings.regular_files import check_file
from pgwatch_sessions.settings.secret_files import explained

_MAX_PEM_BYTES = 4 * 2**20
#: What each file must hold, by the setting that names the file.
_PEM_BLOCKS = {"cert_file": "CERTIFICATE", "key_file": "PRIVATE KEY", "client_ca_file": "CERTIFICATE"}


class TlsFilesError(Exception):
    """Files cannot be used. `messages` say why, by the setting that names the file. They never show file content."""

    def __init__(self, messages: Mapping[str, str]) -> None:
        super().__init__(*messages.values())
        self.messages = messages


class _EncryptedError(Exception):
    """OpenSSL asks for a password."""


class _ServerSide(ssl.SSLObject):
    """One handshake, and what follows it. A client that is refused is told why, by TLS's alert.

    If a handshake fails, asyncio closes the connection and drops the alert that OpenSSL has written. If it has to wait
    for more of the handshake, it sends what OpenSSL has written. So the first failure looks like the latter. The
    client then closes the connection; one that does not is closed at the deadline of its exchange.
    """

    _failed = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self._failed or error.reason == "HTTP_REQUEST":  # a client that speaks plain HTTP knows no alerts
                raise
            self._failed = True
            raise ssl.SSLWantReadError from None


def tls_context(files: Mapping[str, Path], client_auth: ssl.VerifyMode, min_version: ssl.TLSVersion) -> ssl.SSLContext:
    """Load `cert_file`, `key_file` and, if it is given, `client_ca_file`; raise TlsFilesError if one is unusable."""
    messages = {setting: text for setting, path in files.items() if (text := _problem(path, _PEM_BLOCKS[setting]))}
    if messages:
        raise TlsFilesError(messages)
    cert, key, client_ca = files["cert_file"], files["key_file"], files.get("client_ca_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _ServerSide
    context.minimum_version = min_version
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except _EncryptedError:
        advice = f"write it without a password: openssl pkey -in {key} -out FILE"
        raise TlsFilesError({"key_file": f"cannot use {key}: it is encrypted; {advice}"}) from None
    except OSError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            message = f"the key in {key} does not belong to the certificate in {cert}"
            raise TlsFilesError({"key_file": message}) from None
        raise TlsFilesError({"cert_file": f"cannot use {cert} with {key}: {_reason(error)}"}) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise TlsFilesError({"client_ca_file": f"cannot use {client_ca}: {_reason(error)}"}) from None
    context.verify_mode = client_auth
    return context


def _problem(path: Path, block: str) -> str | None:
    """Return what is wrong with one file by itself; OpenSSL would not say which file it cannot read."""
    try:
        check_file(path, _MAX_PEM_BYTES)
        if f"{block}-----".encode() in path.read_bytes():
            return None
    except OSError as error:
        return explained(error)
    return f"cannot use {path}: it has no {block} in PEM"


def _refuse_password() -> str:
    raise _EncryptedError


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"OpenSSL says {error.reason}" if error.reason else "OpenSSL does not understand its content"
    return error.strerror or "it cannot be read"
