"""Connection URIs: what the driver will understand, how to show one, and which server it means."""

import re
from collections.abc import Mapping
from itertools import repeat
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urlsplit

MASK = "***"
_SCHEMES = ("postgresql", "postgres")
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# libpq reads these itself; asyncpg passes what it does not know to the server, which then refuses the connection.
_LIBPQ_ONLY = re.compile(
    r"hostaddr|connect_timeout|keepalives\w*|channel_binding|gssencmode|gssdelegation|sslcompression|sslsni|sslcertmode"
    r"|sslcrldir|sslkeylogfile|require\w+|load_balance_hosts|fallback_application_name|(min|max)_protocol_version"
)
_KEY_VALUE = re.compile(r"\s*\w+\s*=")
_HOST = re.compile(r"(?P<host>\[[\w:.%]+\]|[^\[\]:]+)(?::(?P<port>\d{1,5}))?", re.ASCII)


def check_dsn(dsn: str) -> None:
    """Raise ValueError, whose text shows nothing of the DSN's values, when the driver would not understand it."""
    if _KEY_VALUE.match(dsn) and "://" not in dsn.partition("=")[0]:
        raise ValueError(
            "is a key=value connection string, which the driver does not read; write postgresql://user@host:5432/database"
        )
    if re.search(r"[\s\x00-\x1f\x7f]", dsn):
        raise ValueError("holds white space; percent-encode it (a space is %20)")
    parts = _split(dsn)
    if parts is None or parts.scheme not in _SCHEMES or not dsn.startswith(f"{parts.scheme}://"):
        raise ValueError("is not a connection URI; write postgresql://user@host:5432/database")
    # A bare / ? # @ in a password moves the rest of the password into the host, and so into a label.
    if parts.fragment or dsn.endswith("#") or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
        raise ValueError("is ambiguous; percent-encode @ (%40), / (%2F), ? (%3F) and # (%23) in user and password")
    _check_query(parts.query)
    _check_hosts(parts)


def masked_dsn(dsn: str) -> str:
    """Return the DSN without its secrets; of one that is not understood nothing is shown."""
    try:
        check_dsn(dsn)
    except ValueError:
        return MASK
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    netloc = f"{user}{colon}{MASK if colon else ''}{at}{hosts}"
    query = "&".join(_masked_pair(pair) for pair in parts.query.split("&"))
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else "")


def server_name(dsn: str | None, environ: Mapping[str, str]) -> str:
    """Return `host:port` of the server that the driver will connect to, several joined by commas.

    A service stands for its own host. Without any host the driver tries the usual sockets, then localhost.
    """
    parts = urlsplit(dsn or "postgresql://")
    query = dict(parse_qsl(parts.query))
    listed = parts.netloc.rpartition("@")[2]
    hosts = listed or query.get("host")
    if not hosts and "service" in query:
        return query["service"]
    hosts = hosts or environ.get("PGHOST") or "localhost"
    ports = (("" if listed else query.get("port")) or environ.get("PGPORT") or "5432").split(",")
    each = repeat(ports[0]) if len(ports) == 1 else iter(ports)
    return ",".join(_endpoint(host, port) for host, port in zip(hosts.split(","), each, strict=False))


def _split(dsn: str) -> SplitResult | None:
    try:
        return urlsplit(dsn)
    except ValueError:  # unbalanced brackets; its message shows the host
        return None


def _check_query(query: str) -> None:
    try:
        pairs = parse_qsl(query, strict_parsing=bool(query), keep_blank_values=True)
    except ValueError:
        raise ValueError("has a part after ? that is not key=value pairs joined by &") from None
    for key, value in pairs:
        if _LIBPQ_ONLY.fullmatch(key):
            raise ValueError(f"has the parameter {key}, which only libpq knows; leave it out")
        if key == "sslmode" and value not in _SSLMODES:
            raise ValueError(f"has an sslmode that is none of {', '.join(_SSLMODES)}")


def _check_hosts(parts: SplitResult) -> None:
    query = dict(parse_qsl(parts.query))
    listed = parts.netloc.rpartition("@")[2] or query.get("host")
    hosts = listed.split(",") if listed else []
    matches = [_HOST.fullmatch(host) for host in hosts if not host.startswith("/")]
    ports = [match["port"] for match in matches if match and match["port"]]
    common = query["port"].split(",") if "port" in query else []
    printable = all(unquote(host).isprintable() for host in hosts)
    if not all(matches) or not printable or not all(map(_is_port, ports + common)):
        raise ValueError("has a host or port that is none; write host, host:port or [IPv6 address]:port")
    if len(common) not in {0, 1, len(hosts)}:
        raise ValueError("has more or fewer ports than hosts; give one for all or one for each")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _endpoint(host: str, port: str) -> str:
    match = None if host.startswith("/") else _HOST.fullmatch(host)
    return f"{unquote(match['host'])}:{match['port'] or port}" if match else f"{host}:{port}"


def _masked_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    return f"{key}{equals}{MASK}" if "password" in unquote_plus(key).lower() else f"{key}{equals}{value}"
