"""Certificates and web configurations of a test's own."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import bcrypt
import trustme

#: The cheapest that bcrypt has.
COST = 4


OURS = "ours"


@cache
def authority(name: str) -> trustme.CA:
    """Return an authority; the same for the same name."""
    return trustme.CA(organization_name=name)


def write_certificate(folder: Path, name: str, *names: str, by: str = OURS) -> None:
    """Write NAME.pem and NAME.key for these names, and the authority's own certificate as ca.pem."""
    leaf = authority(by).issue_cert(*(names or ("localhost", "127.0.0.1")))
    leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    leaf.private_key_pem.write_to_path(folder / f"{name}.key")
    authority(OURS).cert_pem.write_to_path(folder / "ca.pem")


def hashed(password: str, cost: int = COST) -> str:
    """Return the bcrypt hash of a password."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def write_web_config(folder: Path, *tls: str, users: Mapping[str, str] | None = None, more: str = "") -> Path:
    """Write web.yml, with a certificate where there is none yet; `tls` are further lines of its section."""
    if not (folder / "server.pem").exists():
        write_certificate(folder, "server")
    lines = ["tls_server_config:", "  cert_file: server.pem", "  key_file: server.key", *(f"  {line}" for line in tls)]
    return write_plain_config(folder, users=users, more="\n".join([*lines, more]))


def write_plain_config(folder: Path, *, users: Mapping[str, str] | None = None, more: str = "") -> Path:
    """Write web.yml without TLS; `users` are hashes by name."""
    logins = ["basic_auth_users:", *(f"  {user}: {of}" for user, of in users.items())] if users else []
    file = folder / "web.yml"
    file.write_text("\n".join([more, *logins, ""]))
    return file
