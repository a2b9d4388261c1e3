"""Certificates and web configurations of a test's own."""

import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import bcrypt
import trustme

OURS = "ours"
#: The lowest cost that bcrypt has.
COST = 4


@cache
def authority(name: str) -> trustme.CA:
    """Return an authority; the same for the same name."""
    return trustme.CA(organization_name=name)


def trusting(*, certificate: Path | None = None) -> ssl.SSLContext:
    """Return the context of a client that trusts our authority, with a certificate of its own if one is given."""
    context = ssl.create_default_context()
    authority(OURS).configure_trust(context)
    if certificate:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


def write_certificate(folder: Path, name: str, *names: str, by: str = OURS) -> None:
    """Write NAME.pem and NAME.key for these names, and the authority's own certificate as ca.pem."""
    leaf = authority(by).issue_cert(*(names or ("localhost", "127.0.0.1")))
    leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    leaf.private_key_pem.write_to_path(folder / f"{name}.key")
    authority(OURS).cert_pem.write_to_path(folder / "ca.pem")


def hashed(password: str, cost: int = COST) -> str:
    """Return the bcrypt hash of a password."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def write_web_config(folder: Path, *tls: str, users: Mapping[str, str] | None = None) -> Path:
    """Write web.yml, with a certificate if there is none yet; `tls` are further lines of its section."""
    if not (folder / "server.pem").exists():
        write_certificate(folder, "server")
    lines = ["tls_server_config:", "  cert_file: server.pem", "  key_file: server.key", *(f"  {line}" for line in tls)]
    return write_plain_config(folder, *lines, users=users)


def write_plain_config(folder: Path, *lines: str, users: Mapping[str, str] | None = None) -> Path:
    """Write web.yml of these lines; `users` are bcrypt hashes by name."""
    logins = ["basic_auth_users:", *(f"  {user}: {of}" for user, of in users.items())] if users else []
    file = folder / "web.yml"
    file.write_text("\n".join([*lines, *logins, ""]))
    return file
