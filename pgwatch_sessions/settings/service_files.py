"""libpq's connection service files: where they are, and the parameters of one service.

libpq looks into the file that `servicefile` or PGSERVICEFILE names, else into ~/.pg_service.conf, and then into
pg_service.conf of the system's folder. The driver knows neither PGSERVICE nor the system's folder, and ignores a
service that it does not find.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pgwatch_sessions.settings.dsn import Parameters, check_parameters
from pgwatch_sessions.settings.errors import PlacedError
from pgwatch_sessions.settings.regular_files import check_file
from pgwatch_sessions.settings.secret_files import explained
from pgwatch_sessions.settings.sources import MAX_CONFIG_BYTES

#: The system's folder is fixed when libpq is built: that of Debian, that of Red Hat, that of the source.
_SYSTEM_FOLDERS = ("/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc")
_FILE_NAME = "pg_service.conf"


class Service(NamedTuple):
    """The parameters of one service, and the place of each: `/etc/pg_service.conf line 3`."""

    parameters: Mapping[str, str]
    places: Mapping[str, str]


def service_of(dsn: Parameters, environ: Mapping[str, str]) -> Service:
    """Return the service that the DSN or PGSERVICE names; an empty one if neither does.

    Raises PlacedError, whose place is the variable or the file and line.
    """
    name = dsn.get("service") or environ.get("PGSERVICE")
    if not name:
        return Service({}, {})
    named_by = "dsn" if dsn.get("service") else "environment variable PGSERVICE"
    files = tuple(_files(dsn, environ))
    for file in files:
        lines = dict(_section(file, name))
        if lines:
            return _read(file, name, lines)
    looked = ", ".join(map(str, files)) or "~/.pg_service.conf"
    raise PlacedError(named_by, f"no section [{name}] in {looked}; add it, or name another file with PGSERVICEFILE")


def _files(dsn: Parameters, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files to look into. The one that is named must exist."""
    named = dsn.get("servicefile") or environ.get("PGSERVICEFILE")
    home = environ.get("HOME")
    if named:
        yield Path(named)
    elif home and (user_file := Path(home, f".{_FILE_NAME}")).exists():
        yield user_file
    folders = (environ["PGSYSCONFDIR"],) if environ.get("PGSYSCONFDIR") else _SYSTEM_FOLDERS
    yield from (file for file in (Path(folder, _FILE_NAME) for folder in folders) if file.exists())


def _section(file: Path, name: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the section's lines, its heading included."""
    try:
        check_file(file, MAX_CONFIG_BYTES)
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise PlacedError("service file", explained(error)) from None
    except UnicodeDecodeError:
        raise PlacedError(f"service file {file}", "not UTF-8 text; save the file as UTF-8") from None
    inside = False
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if line.startswith("["):
            if inside:
                return
            inside = line == f"[{name}]"
        if inside and line and not line.startswith("#"):
            yield number, line


def _read(file: Path, name: str, lines: Mapping[int, str]) -> Service:
    parameters: dict[str, str] = {}
    places: dict[str, str] = {}
    for number, line in list(lines.items())[1:]:
        key, equals, value = line.partition("=")
        place = f"service file {file} line {number}"
        if not equals:
            raise PlacedError(place, f"section [{name}]: not a parameter; write key=value without spaces around =")
        if key in {"service", "servicefile"}:
            raise PlacedError(place, f"section [{name}]: a service cannot name another one; remove it")
        try:
            read = {key: value} if key == "port" else check_parameters([(key, value)])  # ports need the hosts
        except ValueError as error:
            raise PlacedError(place, f"section [{name}]: {error}") from None
        if key in read and key not in parameters:  # libpq keeps the first
            parameters[key], places[key] = read[key], place
    try:
        return Service(check_parameters(parameters.items()), places)
    except ValueError as error:
        raise PlacedError(f"service file {file}", f"section [{name}]: {error}") from None
