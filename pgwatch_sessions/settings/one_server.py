"""Which server is meant if the configuration file lists none: psql's options, the DSN, or a variable of the platform.

psql's options replace parts of the DSN. DATABASE_URL (of application platforms) and DATA_SOURCE_NAME (of
postgres_exporter) are used only if nothing else names a server.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pgwatch_sessions.settings.dsn import SUPPORTED, Parameters, parse_dsn, write_dsn
from pgwatch_sessions.settings.errors import PlacedError
from pgwatch_sessions.settings.sources import Placed

#: libpq's keyword of each option.
LOGIN_OPTIONS: Mapping[str, str] = {"host": "host", "port": "port", "username": "user", "dbname": "dbname"}
#: If one of these is set, libpq's variables name a server.
_NAMING = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE")
_VARIABLES = ("DATABASE_URL", "DATA_SOURCE_NAME")
_URL = re.compile(r"(?P<scheme>postgres(?:ql)?)(?P<driver>\+\w+)?://(?P<rest>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)
_SEVERAL = re.compile(r",\s*postgres(ql)?(\+\w+)?://")
#: SQLAlchemy's asyncpg dialect has `ssl` where libpq has `sslmode`.
_SSL = {"true": "require", "1": "require"}


class ChosenServer(NamedTuple):
    """The DSN of the one server."""

    #: None leaves everything to libpq's variables.
    dsn: Placed | None
    #: If options gave parts of the DSN: the place of each part, by libpq's keyword.
    parts: Mapping[str, str] = {}
    #: One line for the user if a variable that is not ours was used; else empty.
    notice: str = ""


def choose_server(dsn: Placed | None, options: Mapping[str, str], environ: Mapping[str, str]) -> ChosenServer:
    """Return what `dsn`, the options of LOGIN_OPTIONS and the environment say together. Raises PlacedError."""
    whole = options.get("dbname", "")
    if whole.startswith(("postgresql://", "postgres://")) or "=" in whole:
        if dsn is not None and dsn.place == "--dsn":
            raise PlacedError("--dbname", "conflicts with --dsn; give one connection string")
        options = {name: value for name, value in options.items() if name != "dbname"}
        return _combined(Placed(whole, "--dbname"), options, conflicts=True)
    if dsn is None and not {"host", "port"} & options.keys() and not any(environ.get(name) for name in _NAMING):
        for variable in _VARIABLES:
            if (text := environ.get(variable, "").strip()) and (url := _taken(variable, text)):
                return _combined(url.dsn, options)._replace(notice=url.notice)
    return _combined(dsn, options)


def _combined(dsn: Placed | None, options: Mapping[str, str], *, conflicts: bool = False) -> ChosenServer:
    """Put the options into the DSN. `conflicts` forbids options for what the DSN names."""
    if not options:
        return ChosenServer(dsn)
    for port in options.get("port", "").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise PlacedError("--port", "must be a port number from 1 to 65535")
    try:
        base = parse_dsn(dsn.value) if dsn else {}
    except ValueError:
        return ChosenServer(dsn)  # reported when all settings are checked
    parts = {keyword: options[name] for name, keyword in LOGIN_OPTIONS.items() if name in options}
    given = {LOGIN_OPTIONS[name]: f"--{name}" for name in options}
    for keyword in given.keys() & base.keys() if conflicts else ():
        raise PlacedError(given[keyword], f"conflicts with {keyword} in the connection string of --dbname; give one")
    combined = {**_without_stale_parts(base, parts), **parts}
    place = ", ".join(given.values())
    places = dict.fromkeys(base, dsn.place if dsn else "") | given
    return ChosenServer(Placed(write_dsn(combined), f"{place}, {dsn.place}" if dsn else place), places)


def _without_stale_parts(base: Parameters, parts: Parameters) -> Parameters:
    """Leave out ports that belong to other hosts, and the password of another role."""
    stale = set()
    if "host" in parts and "," in base.get("port", ""):
        stale.add("port")
    if parts.get("user", base.get("user")) != base.get("user"):
        stale.add("password")
    return {keyword: value for keyword, value in base.items() if keyword not in stale}


def _taken(variable: str, text: str) -> ChosenServer | None:
    """Return the DSN in a variable that is meant for other programs; None if it is not for PostgreSQL."""
    place = f"environment variable {variable}"
    if _SEVERAL.search(text):
        raise PlacedError(place, "names several servers; list them as `servers` in a configuration file")
    url = _URL.fullmatch(text)
    if url is None:
        return _announced(variable, Placed(text, place)) if "://" not in text.partition("=")[0] else None
    kept, dropped = [], []
    for pair in (url["query"] or "").split("&"):
        key, _, value = pair.partition("=")
        if key == "ssl" and "sslmode=" not in text:
            kept.append(f"sslmode={_SSL.get(value.lower(), value)}")
        elif key in SUPPORTED or not re.fullmatch(r"[A-Za-z_]{1,30}", key) or _security_relevant(key):
            kept.append(pair)
        else:
            dropped.append(key)
    query = "&".join(filter(None, kept))
    dsn = f"{url['scheme']}://{url['rest']}" + (f"?{query}" if query else "")
    return _announced(variable, Placed(dsn, place), *filter(None, (url["driver"],)), *dropped)


def _security_relevant(key: str) -> bool:
    """Return whether leaving out the parameter could make the connection less secure."""
    return key.startswith(("channel", "gss", "ssl", "require"))


def _announced(variable: str, dsn: Placed, *dropped: str) -> ChosenServer:
    without = f", without {', '.join(dropped)}" if dropped else ""
    return ChosenServer(
        dsn, notice=f"using the server that {variable} names{without}; to name another one, use --host or --dsn"
    )
