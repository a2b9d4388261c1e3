"""Connection URIs: whether the driver will accept one, how to show one without secrets, and the server it names."""

import re
from collections.abc import Mapping
from itertools import repeat
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urlsplit

MASK = "***"
_SCHEMES = ("postgresql", "postgres")
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# Parameters that libpq handles itself. asyncpg would send them to the server, which would then refuse the connection.
_LIBPQ_ONLY = re.compile(
    r"hostaddr|connect_timeout|keepalives\w*|channel_binding|gssencmode|gssdelegation|sslcompression|sslsni|sslcertmode"
    r"|sslcrldir|sslkeylogfile|require\w+|load_balance_hosts|fallback_application_name|(min|max)_protocol_version"
)
_KEY_VALUE = re.compile(r"\s*\w+\s*=")
_HOST = re.compile(r"(?P<host>\[[\w:.%]+\]|[^\[\]:]+)(?::(?P<port>\d{1,5}))?", re.ASCII)


def check_dsn(dsn: str) -> None:
    """Raise ValueError if the driver would not accept the DSN. The message shows none of the DSN's values."""
    if _KEY_VALUE.match(dsn) and "://" not in dsn.partition("=")[0]:
        raise ValueError("key=value connection strings are not supported; write postgresql://user@host:5432/database")
    if re.search(r"[\s\x00-\x1f\x7f]", dsn):
        raise ValueError("contains white space; percent-encode it (a space is %20)")
    parts = _split(dsn)
    if parts is None or parts.scheme not in _SCHEMES or not dsn.startswith(f"{parts.scheme}://"):
        raise ValueError("not a connection URI; write postgresql://user@host:5432/database")
    # An unencoded / ? # or @ in a password would make the rest of the password part of the host, and so of a label.
    if parts.fragment or dsn.endswith("#") or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
        raise ValueError("ambiguous; percent-encode @ (%40), / (%2F), ? (%3F) and # (%23) in user and password")
    _check_query(parts.query)
    _check_hosts(parts)


def masked_dsn(dsn: str) -> str:
    """Return the DSN with its passwords masked; only the mask if the driver would not accept the DSN."""
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
    """Return `host:port` of the server that the driver will connect to, with commas between several.

    For a DSN with only a service, return the service's name. Without a host the driver tries the usual sockets, then
    localhost: return localhost. Raises ValueError if the driver would not accept the DSN.
    """
    if dsn is not None:
        check_dsn(dsn)
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
    except ValueError:  # unbalanced brackets; the error would show the host
        return None


def _check_query(query: str) -> None:
    try:
        pairs = parse_qsl(query, strict_parsing=bool(query), keep_blank_values=True)
    except ValueError:
        raise ValueError("invalid parameters after ?; write key=value pairs with & between them") from None
    for key, value in pairs:
        if _LIBPQ_ONLY.fullmatch(key):
            raise ValueError(f"the parameter {key} is not supported by the driver; remove it")
        if key == "sslmode" and value not in _SSLMODES:
            raise ValueError(f"invalid sslmode; write one of {', '.join(_SSLMODES)}")


def _check_hosts(parts: SplitResult) -> None:
    query = dict(parse_qsl(parts.query))
    listed = parts.netloc.rpartition("@")[2] or query.get("host")
    hosts = listed.split(",") if listed else []
    matches = [_HOST.fullmatch(host) for host in hosts if not host.startswith("/")]
    ports = [match["port"] for match in matches if match and match["port"]]
    common = query["port"].split(",") if "port" in query else []
    printable = all(unquote(host).isprintable() for host in hosts)
    if not all(matches) or not printable or not all(map(_is_port, ports + common)):
        raise ValueError("invalid host or port; write host, host:port or [IPv6 address]:port")
    if len(common) not in {0, 1, len(hosts)}:
        raise ValueError("numbers of hosts and ports differ; give one port for all hosts, or one for each")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _endpoint(host: str, port: str) -> str:
    match = None if host.startswith("/") else _HOST.fullmatch(host)
    return f"{unquote(match['host'])}:{match['port'] or port}" if match else f"{host}:{port}"


def _masked_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    return f"{key}{equals}{MASK}" if "password" in unquote_plus(key).lower() else f"{key}{equals}{value}"
