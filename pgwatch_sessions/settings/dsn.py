"""Connection strings: URIs and key=value pairs, read into libpq's parameters, checked, masked and written again."""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import repeat
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pgwatch_sessions.settings.key_values import looks_like_key_values, read_key_values, write_key_values

MASK = "***"
#: By libpq's keyword. Without `host`, the driver tries the usual socket folders and then localhost.
Parameters = Mapping[str, str]

_SCHEMES = ("postgresql", "postgres")
#: What a host must be, by target_session_attrs.
ROLES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
#: The ways to log in of require_auth. Those that begin with ! are forbidden instead.
LOGINS = ("password", "md5", "gss", "sspi", "scram-sha-256", "none")
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: What the driver understands, the most common first.
SUPPORTED = (
    "host", "port", "user", "password", "dbname", "passfile", "service", "servicefile", "sslmode", "sslrootcert",
    "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "target_session_attrs", "require_auth", "krbsrvname", "gsslib", "options",
)  # fmt: skip
#: Any text can be in these: passwords, and `options` may set a parameter of an extension to a token.
_SECRET = frozenset({"password", "sslpassword", "options"})
# The daemon has its own for each of these: time-outs, keepalive, application name and encoding.
_WITHOUT_EFFECT = re.compile(
    r"connect_timeout|keepalives\w*|tcp_user_timeout|(fallback_)?application_name|client_encoding|sslcompression"
)
# Parameters that libpq handles itself. asyncpg would send them to the server, which would then refuse the connection.
_LIBPQ_ONLY = re.compile(
    r"hostaddr|channel_binding|gssencmode|gssdelegation|sslsni|sslcertmode|sslcrldir|sslkeylogfile|requirepeer|requiressl"
    r"|load_balance_hosts|(min|max)_protocol_version"
)
#: Values with which such a parameter asks for nothing.
_OPTIONAL = frozenset({"", "0", "allow", "disable", "prefer"})
_HOST = re.compile(r"[^\[\]:/\s@?#,%]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[\w:.%]*|/[^,]*", re.ASCII)
_LISTED = re.compile(r"(?P<host>\[[\w:.%]+\]|[^\[\]:]+)(?::(?P<port>\d{0,5}))?", re.ASCII)
_BAD_HOST = "invalid host or port; write host, host:port or [IPv6 address]:port"


def parse_dsn(dsn: str) -> dict[str, str]:
    """Return the parameters of a URI or of key=value pairs.

    Raises ValueError if the driver would not accept them. The message shows none of the values.
    """
    pairs = read_key_values(dsn) if looks_like_key_values(dsn) else _uri_pairs(dsn)
    return check_parameters(pairs)


def check_parameters(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters that have an effect. Raises ValueError for those that the driver would not accept."""
    parameters: dict[str, str] = {}
    for given, value in pairs:
        key = "dbname" if given == "database" else given
        if key in SUPPORTED:
            parameters[key] = value
        elif _LIBPQ_ONLY.fullmatch(key) and value not in _OPTIONAL:
            raise ValueError(f"the parameter {key} is not supported by the driver; remove it")
        elif not _WITHOUT_EFFECT.fullmatch(key) and not _LIBPQ_ONLY.fullmatch(key):
            raise ValueError(_unknown(key))
    parameters = {key: value for key, value in parameters.items() if value}  # for libpq, empty means not given
    if parameters.get("sslmode", _SSLMODES[0]) not in _SSLMODES:
        raise ValueError(f"invalid sslmode; write one of {', '.join(_SSLMODES)}")
    if parameters.get("target_session_attrs", ROLES[0]) not in ROLES:
        raise ValueError(f"invalid target_session_attrs; write one of {', '.join(ROLES)}")
    allowed_logins(parameters.get("require_auth", ""))
    if "host" in parameters:  # brackets belong to URIs
        parameters["host"] = ",".join(host.strip("[]") for host in _listed(parameters["host"]))
    _check_hosts(parameters)
    return parameters


def allowed_logins(require_auth: str) -> frozenset[str] | None:
    """Return the ways to log in that require_auth allows; None for all. Raises ValueError for one that is unknown."""
    given = [method.strip() for method in require_auth.split(",")] if require_auth else []
    forbidden = {method.removeprefix("!") for method in given if method.startswith("!")}
    allowed = set(given) - {f"!{method}" for method in forbidden}
    if not forbidden | allowed <= set(LOGINS) or (forbidden and allowed):
        raise ValueError(f"invalid require_auth; write some of {', '.join(LOGINS)}, or each with ! before it")
    return frozenset(allowed or set(LOGINS) - forbidden) if given else None


def listed_hosts(parameters: Parameters) -> tuple[tuple[str, int], ...]:
    """Return the hosts, each with its port."""
    hosts, ports = _listed(parameters.get("host", "")), _listed(parameters.get("port", "")) or ["5432"]
    each = ports if len(ports) == len(hosts) else ports * len(hosts)
    return tuple((host, int(port or 5432)) for host, port in zip(hosts, each, strict=True))


def write_dsn(parameters: Parameters) -> str:
    """Return the URI that the driver and `parse_dsn` read as these parameters."""
    hosts, ports = _listed(parameters.get("host", "")), _listed(parameters.get("port", ""))
    in_query = dict(parameters)
    if in_query.get("port", "").strip(","):  # the driver wants a number for each
        in_query["port"] = ",".join(port or "5432" for port in ports)
    else:
        in_query.pop("port", None)
    netloc = ""
    # An authority cannot have a path, and a list cannot have brackets: some versions of urllib refuse that.
    if hosts and not any("/" in host or not host.isascii() or (":" in host and len(hosts) > 1) for host in hosts):
        each_port = ports if len(ports) > 1 else ports * len(hosts) or [""] * len(hosts)
        netloc = ",".join(
            _endpoint(host.replace("%", "%25"), port) for host, port in zip(hosts, each_port, strict=True)
        )
        in_query = {key: value for key, value in in_query.items() if key not in {"host", "port"}}
    if "user" in parameters and (netloc or "password" not in parameters):
        login = quote(in_query.pop("user"), safe="")
        password = in_query.pop("password", None)
        netloc = f"{login}{'' if password is None else ':' + quote(password, safe='')}@{netloc}"
    path = f"/{quote(in_query.pop('dbname'), safe='')}" if "dbname" in parameters else ""
    query = "&".join(f"{key}={quote(_bracketed(key, value), safe='/,:[]')}" for key, value in in_query.items())
    return f"postgresql://{netloc}{path}" + (f"?{query}" if query else "")


def shown_value(key: str, value: str) -> str:
    """Return the value of a parameter that is known to be harmless, and the mask for every other one."""
    harmless = (key in SUPPORTED and key not in _SECRET) or key == "database" or _WITHOUT_EFFECT.fullmatch(key)
    return value if harmless else MASK


def masked_dsn(dsn: str) -> str:
    """Return the DSN without what may be secret; only the mask if the driver would not accept the DSN."""
    try:
        parse_dsn(dsn)
    except ValueError:
        return MASK
    if looks_like_key_values(dsn):
        return write_key_values({key: shown_value(key, value) for key, value in read_key_values(dsn)})
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    netloc = f"{user}{colon}{MASK if colon else ''}{at}{hosts}"
    query = "&".join(_masked_pair(pair) for pair in filter(None, parts.query.split("&")))
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else "")


def server_name(parameters: Parameters, environ: Mapping[str, str]) -> str:
    """Return `host:port` of the server that the driver will connect to, with commas between several.

    Without a host but with a service, return the service's name. Without both the driver tries the usual sockets, then
    localhost: return localhost.
    """
    service = parameters.get("service") or environ.get("PGSERVICE")
    if "host" not in parameters and service:
        return service
    hosts = _listed(parameters.get("host") or environ.get("PGHOST") or "localhost")
    default = environ.get("PGPORT") or "5432"
    ports = _listed(parameters.get("port") or default)
    each = repeat(ports[0]) if len(ports) == 1 else iter(ports)
    return ",".join(_endpoint(host, port or default) for host, port in zip(hosts, each, strict=False))


def _uri_pairs(dsn: str) -> Iterator[tuple[str, str]]:
    """Yield keys and values of a URI."""
    if re.match(r"postgres(ql)?\+\w+://", dsn):
        raise ValueError("names a driver of SQLAlchemy; write postgresql:// without + and the driver")
    if re.search(r"[\s\x00-\x1f\x7f]", dsn):
        raise ValueError("contains white space; percent-encode it (a space is %20)")
    parts = _split(dsn)
    if parts is None or parts.scheme not in _SCHEMES or not dsn.startswith(f"{parts.scheme}://"):
        raise ValueError(
            "not a connection URI; write postgresql://user@host:5432/database, or host=db user=x dbname=database"
        )
    # An unencoded / ? # or @ in a password would make the rest of the password part of the host, and so of a label.
    if parts.fragment or dsn.endswith("#") or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
        raise ValueError("ambiguous; percent-encode @ (%40), / (%2F), ? (%3F) and # (%23) in user and password")
    login, _, listed = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if listed:
        matches = [_LISTED.fullmatch(each) for each in listed.split(",")]
        found = [match for match in matches if match]
        if len(found) < len(matches):
            raise ValueError(_BAD_HOST)
        yield "host", ",".join(unquote(match["host"]).strip("[]") for match in found)
        ports = [match["port"] or "" for match in found]
        yield "port", ",".join(ports) if any(ports) else ""
    yield "user", unquote(user)
    yield "password", unquote(password)
    yield "dbname", unquote(parts.path.removeprefix("/"))
    for pair in filter(None, parts.query.split("&")):
        key, equals, value = map(unquote, pair.partition("="))
        if not equals:
            raise ValueError("invalid parameters after ?; write key=value pairs with & between them")
        if not (listed and key in {"host", "port"}):
            yield key, value


def _split(dsn: str) -> SplitResult | None:
    try:
        return urlsplit(dsn)
    except ValueError:  # unbalanced brackets; the error would show the host
        return None


def _unknown(key: str) -> str:
    """Return the message for an unknown parameter. Its name is shown only if it can be no part of a password."""
    similar = get_close_matches(key, SUPPORTED, n=1, cutoff=0.7)
    if similar:
        return f"unknown parameter {key}; did you mean {similar[0]}?"
    return f"has an unknown parameter; supported are {', '.join(SUPPORTED)}"


def _check_hosts(parameters: Parameters) -> None:
    hosts, ports = _listed(parameters.get("host", "")), _listed(parameters.get("port", ""))
    if not all(_HOST.fullmatch(host) and host.isprintable() for host in hosts) or not all(map(_is_port, ports)):
        raise ValueError(_BAD_HOST)
    if len(ports) > 1 and len(ports) != len(hosts):
        raise ValueError("numbers of hosts and ports differ; give one port for all hosts, or one for each")


def _listed(text: str) -> list[str]:
    return text.split(",") if text else []


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and 0 < int(text) < 65536)


def _endpoint(host: str, port: str) -> str:
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{name}:{port}" if port else name


def _bracketed(key: str, value: str) -> str:
    if key != "host":
        return value
    return ",".join(_endpoint(host, "") for host in _listed(value))


def _masked_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    return f"{key}{equals}{shown_value(unquote(key), value)}"
