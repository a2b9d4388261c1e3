"""What a connection is made with: the DSN, then the service file, then libpq's variables, then defaults."""

import getpass
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pgwatch_sessions.settings.dsn import (
    allowed_logins,
    check_parameters,
    listed_hosts,
    parse_dsn,
    shown_value,
    write_dsn,
)
from pgwatch_sessions.settings.errors import PlacedError
from pgwatch_sessions.settings.service_files import service_of

#: The variables that the driver or we read, by libpq's keyword.
_VARIABLES: Mapping[str, str] = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "require_auth": "PGREQUIREAUTH",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
}
#: Shown even if they are not given.
_ALWAYS = ("host", "port", "user", "dbname", "sslmode")
#: What the driver is not told, because we decide it.
_OURS = ("target_session_attrs", "require_auth")
_DECIDED = ("host", "port", *_OURS)
_DEFAULT = "default"


class Parameter(NamedTuple):
    """One parameter of a connection, for people. Secrets are never in `value`."""

    keyword: str
    value: str
    #: `PGHOST`, `service file /etc/pg_service.conf line 3`, `default`.
    source: str


class Route(NamedTuple):
    """How to reach a server: what the driver is told, and what we decide ourselves."""

    #: The URI for the driver, which reads libpq's variables too. None leaves everything to those.
    dsn: str | None
    #: Each with its port. Empty leaves the choice to the driver.
    hosts: tuple[tuple[str, int], ...]
    #: target_session_attrs.
    role: str
    #: The ways to log in that require_auth allows; None for all.
    logins: frozenset[str] | None


def route_of(dsn: str | None, environ: Mapping[str, str]) -> Route:
    """Return how to reach the server of a DSN, with the parameters of the service.

    Raises ValueError, of which PlacedError names a place of its own.
    """
    given = parse_dsn(dsn) if dsn is not None else {}
    merged = {**service_of(given, environ).parameters, **given}
    decided = {key: merged.get(key) or environ.get(_VARIABLES[key], "") for key in _DECIDED}
    try:
        decided = check_parameters(decided.items())
    except ValueError as error:  # the parameters were checked before, so it is one of the variables
        variables = ", ".join(_VARIABLES[key] for key in decided if key not in merged and decided[key])
        raise PlacedError(f"environment variable {variables}", str(error)) from None
    driven = {key: value for key, value in merged.items() if key not in {"service", "servicefile", *_OURS}}
    return Route(
        dsn=write_dsn(driven) if driven else None,
        hosts=listed_hosts(decided),
        role=decided.get("target_session_attrs", "any"),
        logins=allowed_logins(decided.get("require_auth", "")),
    )


def effective_parameters(
    dsn: str | None, *, password_file: Path | None, source_of: Callable[[str], str], environ: Mapping[str, str]
) -> Iterator[Parameter]:
    """Yield what the connection is made with. `source_of` tells where the DSN has the part of a keyword from."""
    given = parse_dsn(dsn) if dsn is not None else {}
    service = service_of(given, environ)
    found: dict[str, Parameter] = {}
    for keyword, value in given.items():
        found[keyword] = Parameter(keyword, value, source_of(keyword))
    for keyword, value in service.parameters.items():
        found.setdefault(keyword, Parameter(keyword, value, service.places[keyword]))
    if environ.get("PGSERVICE"):
        found.setdefault("service", Parameter("service", environ["PGSERVICE"], "environment variable PGSERVICE"))
    for keyword, variable in _VARIABLES.items():
        if environ.get(variable):
            found.setdefault(keyword, Parameter(keyword, environ[variable], f"environment variable {variable}"))
    shown = {keyword: found.get(keyword) or _default(keyword, found) for keyword in _ALWAYS}
    yield from shown.values()
    yield _password(found, {key: each.value for key, each in shown.items()}, password_file, environ)
    for keyword, parameter in found.items():
        if keyword not in {*shown, "password", "sslpassword"}:
            yield parameter._replace(value=shown_value(keyword, parameter.value))


def has_password(dsn: str | None, environ: Mapping[str, str]) -> bool:
    """Return whether the driver finds a password for this URI: in it, in PGPASSWORD or in libpq's password file."""
    without_service = {name: value for name, value in environ.items() if name != "PGSERVICE"}  # it is in the URI
    parameters = effective_parameters(dsn, password_file=None, source_of=lambda _: "", environ=without_service)
    return any(each.keyword == "password" and each.value == "set" for each in parameters)


def _default(keyword: str, found: Mapping[str, Parameter]) -> Parameter:
    if keyword == "user":
        return Parameter(keyword, getpass.getuser(), "default: the operating system's user")
    if keyword == "dbname":
        user = found["user"].value if "user" in found else getpass.getuser()
        return Parameter(keyword, user, "default: the user's name")
    values = {"host": "the usual socket folders, then localhost", "port": "5432", "sslmode": "prefer"}
    return Parameter(keyword, values[keyword], _DEFAULT)


def _password(
    found: Mapping[str, Parameter], login: Mapping[str, str], password_file: Path | None, environ: Mapping[str, str]
) -> Parameter:
    if password_file is not None:
        return Parameter("password", "set", f"password_file {password_file}")
    if "password" in found:
        return Parameter("password", "set", found["password"].source)
    named = found["passfile"].value if "passfile" in found else None
    file = Path(named) if named else Path(environ.get("HOME", "/"), ".pgpass")
    value, source = _password_in(file, login)
    return Parameter("password", value, source)


def _password_in(file: Path, login: Mapping[str, str]) -> tuple[str, str]:
    """Return whether libpq's password file has a password for the login, and where or why not."""
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            return "not set", f"{file} is ignored: it must be a file that only its owner may read (chmod 600)"
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "not set", _DEFAULT
    hosts = login["host"].split(",") if "/" not in login["host"] and " " not in login["host"] else ["localhost"]
    ports = login["port"].split(",")
    for number, line in enumerate(lines, start=1):
        fields = re.split(r"(?<!\\):", line.strip(), maxsplit=4)  # \: is a colon inside a field
        for index, host in enumerate(hosts):
            wanted = (host, ports[index % len(ports)] or "5432", login["dbname"], login["user"])
            if len(fields) == 5 and all(  # host:port:database:user:password
                field in {"*", want} for field, want in zip(fields, wanted, strict=False)
            ):
                return "set", f"password file {file} line {number}"
    return "not set", f"password file {file} has no line for this login"
