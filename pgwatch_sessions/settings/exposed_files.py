"""Files with secrets that every user of the machine can read."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_IROTH, S_ISREG, S_IXOTH

from pgwatch_sessions.settings.dsn import parse_dsn
from pgwatch_sessions.settings.errors import KeyPath
from pgwatch_sessions.settings.model import Settings
from pgwatch_sessions.settings.service_files import service_of

_PASSWORDS = frozenset({"password", "sslpassword"})
#: Places, as errors name them; options that replace parts of a DSN may stand before the place of the DSN.
_VARIABLE = re.compile(r"(?:--.*, )?environment variable (?P<name>.*_FILE)")
_FILE = re.compile(r"(?:--.*, )?(?:secret|service) file (?P<file>.*?)(?: line \d+)?")
_LINE = re.compile(r"(?:--.*, )?(?P<file>.*) line \d+: .*")


def secret_files(
    settings: Settings, places: Mapping[KeyPath, str], environ: Mapping[str, str]
) -> Iterator[tuple[Path, str]]:
    """Yield the files with secrets that the settings name or were read from, each with what it holds."""
    for index, server in enumerate(settings.servers):
        if server.password_file is not None:
            yield server.password_file, "a password"
        parameters = parse_dsn(server.dsn.get_secret_value()) if server.dsn else {}
        if "sslkey" in parameters:
            yield Path(parameters["sslkey"]), "a private key"
        of_dsn = dict.fromkeys(parameters, places.get(("servers", index, "dsn"), places.get(("dsn",), "")))
        for parameter, place in (*of_dsn.items(), *service_of(parameters, environ).places.items()):
            if parameter in _PASSWORDS and (file := _file_of(place, environ)):
                yield file, "a password"


def readable_by_all(path: Path) -> bool:
    """Return whether its mode, and that of each folder above, let every user read the file.

    A file on a read-only mount is left out: it is a secret of Docker or Kubernetes, which only one container has.
    """
    try:
        path = path.resolve(strict=True)
        mode, mount = path.stat().st_mode, os.statvfs(path)
        if not S_ISREG(mode) or mount.f_flag & os.ST_RDONLY:
            return False
        return bool(mode & S_IROTH) and all(folder.stat().st_mode & S_IXOTH for folder in path.parents)
    except OSError:  # it has gone, which is said when it is used
        return False


def _file_of(place: str, environ: Mapping[str, str]) -> Path | None:
    """Return the file that a place names, if it is in a file."""
    if match := _VARIABLE.fullmatch(place):
        return Path(environ[match["name"]])
    match = _FILE.fullmatch(place) or _LINE.fullmatch(place)
    return Path(match["file"]) if match else None
