"""The web configuration: TLS, users and headers, in the layout that Prometheus' exporters share.

Checked as a whole and loaded as a whole, certificates included: what comes out can be used at once.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pgwatch_sessions.exposition.tls import Tls
from pgwatch_sessions.exposition.tls_context import UnusableError, check_file, problems
from pgwatch_sessions.exposition.web_sections import SECTIONS, Headers, Http, TlsServer, Users
from pgwatch_sessions.settings.errors import SettingError, SettingsError, not_a_setting
from pgwatch_sessions.settings.secret_files import explained
from pgwatch_sessions.settings.sources import Layer, from_file

#: In bytes, and far more than is needed; while it is read, the daemon does nothing else.
_LARGEST_FILE = 64 * 1024
_EMPTY = "is empty; fill it or remove it"
#: What the layout has and we have not, and what to do instead.
_NOT_HERE: Mapping[tuple[str | int, ...], str] = {
    ("tls_server_config", "cert"): "is not read here; write the certificate into a file and name it as cert_file",
    ("tls_server_config", "key"): "is not read here; write the key into a file and name it as key_file",
    ("tls_server_config", "client_ca"): "is not read here; write it into a file and name it as client_ca_file",
    ("rate_limit",): "is not known here; remove it: connections, their time and logins are bounded without it",
}


Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """Who may ask, and how."""

    #: None is plain HTTP.
    tls: Tls | None
    #: What clients have to bring or bear.
    demands: tuple[str, ...]
    #: bcrypt hashes by user; everybody may ask when empty.
    users: Mapping[str, str]
    headers: Mapping[str, str]
    #: What was read, as it was just before.
    stamps: Mapping[Path, Stamp]


def stamp_of(file: Path) -> Stamp:
    """Return what changes whenever the file does; None when it cannot be looked at."""
    try:
        status = os.stat(file)  # noqa: PTH116  # at each request, so without a detour
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def load_web_config(path: Path) -> WebConfig:
    """Read the file and what it names; SettingsError with every mistake there is, and nothing secret in it."""
    stamps = {path: stamp_of(path)}
    layer = _layer(path)
    sections, errors = _sections(layer)
    found = [*layer.errors, *errors]
    if not layer.values and not found:
        found.append(SettingError(place=str(path), message="is empty; give it tls_server_config or basic_auth_users"))
    wanted, tls = sections.get("tls_server_config"), None
    if isinstance(wanted, TlsServer):
        files = wanted.files(path.parent)
        read = (files.cert_file, files.key_file, files.client_ca_file)
        stamps |= {file: stamp_of(file) for file in read if file is not None}
        mistakes = [*wanted.misfits(), *problems(files)]
        try:
            tls = None if mistakes else wanted.tls(files)
        except UnusableError as error:
            mistakes = [(error.name, str(error))]
        found += [SettingError(place=layer.place(("tls_server_config", name)), message=text) for name, text in mistakes]
    if found:
        raise SettingsError(tuple(found))
    users, http = sections.get("basic_auth_users"), sections.get("http_server_config")
    demands = wanted.demands() if isinstance(wanted, TlsServer) else ()
    return WebConfig(
        tls=tls,
        demands=(*demands, "passwords") if users else demands,
        users=users.root if isinstance(users, Users) else {},
        headers=http.headers.set_ones() if isinstance(http, Http) else {},
        stamps=stamps,
    )


def _layer(path: Path) -> Layer:
    try:
        check_file(path, _LARGEST_FILE)
    except OSError as error:
        return Layer(errors=(SettingError(place="web_config", message=explained(error)),))
    return from_file(path, place="web_config")


def _sections(layer: Layer) -> tuple[dict[str, BaseModel], list[SettingError]]:
    """Check each section by itself, so that the mistakes of one hide nothing of another."""
    sections: dict[str, BaseModel] = {}
    found = []
    for name, value in layer.values.items():
        if name not in SECTIONS:
            message = _NOT_HERE.get((name,)) or not_a_setting(name, SECTIONS)
            found.append(SettingError(place=layer.place((name,)), message=message))
        elif not value:  # half written, it must not open what is closed
            found.append(SettingError(place=layer.place((name,)), message=_EMPTY))
        else:
            try:
                sections[name] = SECTIONS[name].model_validate(value)
            except ValidationError as invalid:
                found += [_explained(error, name, layer) for error in invalid.errors(include_url=False)]
    return sections, found


_MESSAGES = {
    "string_type": "must be text; put it in quotes",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "too_short": _EMPTY,
    "string_too_short": _EMPTY,
}


def _explained(error: ErrorDetails, section: str, layer: Layer) -> SettingError:
    """Say in our words what pydantic found, without the value, which may be a secret."""
    path = (section, *(part for part in error["loc"] if part != "[key]"))
    kind = error["type"]
    if error["loc"][-1:] == ("[key]",) and kind == "string_type":
        return SettingError(
            place=layer.place((section,)), message="has a user whose name is not text; put it in quotes"
        )
    if kind == "missing":
        return SettingError(place=layer.place(path[:-1]), message=f"{path[-1]} is missing")
    if kind == "value_error":
        message = str(error["ctx"]["error"])
    elif kind == "literal_error":
        message = f"must be {error['ctx']['expected'].removeprefix(repr('') + ', ').removeprefix(repr('') + ' or ')}"
    elif kind == "extra_forbidden":
        message = _NOT_HERE.get(path) or not_a_setting(str(path[-1]), _known(path[:-1]))
    else:
        message = _MESSAGES.get(kind, "is not valid")
    return SettingError(place=layer.place(path), message=message)


def _known(section: tuple[str | int, ...]) -> Iterable[str]:
    model = Headers if section[-1] == "headers" else SECTIONS[str(section[0])]
    return (field.alias or name for name, field in model.model_fields.items())
