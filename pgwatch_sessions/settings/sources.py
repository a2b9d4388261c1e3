"""Where settings come from: options, environment variables, secret files and the configuration file.

Every value keeps its place, so that errors can name it. Nothing is checked here, and pydantic is not imported: the
health check, which runs every few seconds, reads its few settings with this module alone.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pgwatch_sessions.settings.errors import KeyPath, PlacedError, SettingError
from pgwatch_sessions.settings.regular_files import check_file
from pgwatch_sessions.settings.secret_files import explained, explained_secret, read_secret

PREFIX = "PGWATCH_SESSIONS_"
#: Of a configuration file. The DSNs of 5,000 servers need less.
MAX_CONFIG_BYTES = 2**20

# Kubernetes and `docker --link` define these in every container beside a service that is called pgwatch-sessions.
_SERVICE_LINK = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Wrong:
    """Takes the place of a value that cannot be used, so that validation reports it together with all other errors."""

    #: What is wrong and what to do.
    message: str


class Placed(NamedTuple):
    """A value, and the place where it was given."""

    value: Any
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The content of a configuration file."""

    #: Nested mappings and lists, as the file has them.
    values: Mapping[str, Any] = field(default_factory=dict)
    #: The place of each key and list item.
    places: Mapping[KeyPath, str] = field(default_factory=dict)
    errors: tuple[SettingError, ...] = ()

    def place(self, path: KeyPath) -> str:
        """Return the place of a value, or of the nearest mapping or list around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "settings")


def variable(path: tuple[str, ...]) -> str:
    """Return the name of a setting's environment variable."""
    return PREFIX + "__".join(path).upper()


def option(path: tuple[str, ...]) -> str:
    """Return a setting's command line option."""
    return "--" + "-".join(path).replace("_", "-")


def read_sources(
    options: Mapping[str, object], environ: Mapping[str, str], known: Collection[str]
) -> tuple[tuple[Mapping[str, Placed], ...], Layer]:
    """Return what options, environment, secret files and secrets directory give, in this order, and the file.

    All but the file are by the names of environment variables. The first source that has a setting wins. `options` are
    named as settings, with dots for sections; None means not given. Secret files are read for `known` variables only.
    """
    given = {
        variable(path): Placed(value, option(path))
        for path, value in ((tuple(name.split(".")), value) for name, value in options.items())
        if value is not None
    }
    direct, from_files = _environment(environ, known)
    directory = _take(variable(("secrets_dir",)), given, direct)
    config = _take(variable(("config",)), given, direct)
    secrets = _secrets_directory(directory, known) if directory else {}
    file = from_file(Path(config.value), place=config.place) if config else Layer()
    return (given, direct, from_files, secrets), file


def _take(name: str, *sources: dict[str, Placed]) -> Placed | None:
    """Remove a name from all sources, and return the value of the first source that had it."""
    found = [source.pop(name) for source in sources if name in source]
    return found[0] if found else None


def from_file(path: Path, *, place: str, max_bytes: int = MAX_CONFIG_BYTES) -> Layer:
    """Read a YAML file; `place` is where its path was given."""
    from pgwatch_sessions.settings.yaml_files import read_document  # noqa: PLC0415  # loads PyYAML: 50 ms of CPU time, which a health check without a file saves

    try:
        check_file(path, max_bytes)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return _broken(place, explained(error))
    except UnicodeDecodeError:
        return _broken(str(path), "not UTF-8 text; save the file as UTF-8")
    try:
        values, places, errors = read_document(text, str(path), max_size=2 * max_bytes)  # one byte may be two nodes
    except PlacedError as error:
        return _broken(error.place, error.message)
    if values is not None and not isinstance(values, dict):
        return _broken(str(path), "must be a mapping of settings, such as `interval: 10s`")
    named = {str(name): value for name, value in (values or {}).items()}
    return Layer(values=named, places=places, errors=errors)


def _environment(environ: Mapping[str, str], known: Collection[str]) -> tuple[dict[str, Placed], dict[str, Placed]]:
    """Return what variables with our prefix give, and what the files give that `..._FILE` variables name."""
    direct, from_files = {}, {}
    for name, text in environ.items():
        upper, place = name.upper(), f"environment variable {name}"
        if not upper.startswith(PREFIX) or not text or _is_service_link(upper.removeprefix(PREFIX), text):
            continue
        if upper not in known and (setting := upper.removesuffix("_FILE")) in known:
            from_files[setting] = Placed(_secret(Path(text)), place)
        else:
            direct[upper] = Placed(text, place)
    return direct, from_files


def _is_service_link(rest: str, text: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(rest) or (rest.endswith("PORT") and _SERVICE_URL.match(text)))


def _secrets_directory(directory: Placed, known: Collection[str]) -> dict[str, Placed]:
    """Read the files that are named as our environment variables, in upper or lower case. Other files are ignored."""
    try:
        files = sorted(Path(directory.value).iterdir())
    except OSError as error:
        return {directory.place: Placed(Wrong(explained(error)), directory.place)}
    return {
        name: Placed(_secret(file) if name in known else None, f"secret file {file}")
        for name, file in ((file.name.upper(), file) for file in files)
        if name.startswith(PREFIX)
    }


def _secret(file: Path) -> str | Wrong:
    try:
        return read_secret(file)
    except OSError as error:
        return Wrong(explained_secret(error))


def _broken(place: str, message: str) -> Layer:
    return Layer(errors=(SettingError(place=place, message=message),))
