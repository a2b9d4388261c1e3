"""The settings: their names, types, bounds, defaults and descriptions. The thresholds' defaults are those of Policy."""

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from stat import S_ISDIR
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SecretStr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pgwatch_sessions.core.judging.configured_limits import ConfiguredLimit
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.settings.address import DEFAULT_LISTEN, Address
from pgwatch_sessions.settings.connection_parameters import Route, route_of
from pgwatch_sessions.settings.dsn import masked_dsn, parse_dsn, server_name
from pgwatch_sessions.settings.quantities import count, duration, size
from pgwatch_sessions.settings.regular_files import check_file
from pgwatch_sessions.settings.secret_files import explained, explained_secret, read_secret
from pgwatch_sessions.settings.sharding import Shard
from pgwatch_sessions.settings.sources import MAX_CONFIG_BYTES, PREFIX, Wrong
from pgwatch_sessions.settings.templates import TARGET, check_template, filled

#: In characters. The name is a label of every series.
_MAX_NAME = 200
#: A directory that does not answer for so long counts as one that does not exist yet.
_DISK_SECONDS = 2.0
#: libpq's parameters that name files. Without a check, a missing file would be an error at each connect.
_DSN_FILES = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl"})
_MAX_DSN_FILE_BYTES = 4 * 2**20
_POLICY = Policy()


def _off(value: object) -> object:
    return "off" if value is False else value  # tools that speak YAML 1.1, such as Helm, write `off` as false


def _yes_or_no(value: object) -> object:
    return (
        {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    )  # YAML 1.1 reads a bare `yes` as true


def _patterns(value: object) -> object:
    """Accept a list of patterns, or text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _pattern(pattern: str) -> str:
    if not pattern.strip():
        raise ValueError("must not be empty; remove it to match all")
    return pattern


def _printable(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
        raise ValueError(f"must be 1 to {_MAX_NAME} printable characters")
    return name


def _usable_dsn(dsn: SecretStr) -> SecretStr:
    for name, value in parse_dsn(dsn.get_secret_value()).items():
        if name in _DSN_FILES:
            try:
                check_file(Path(value), _MAX_DSN_FILE_BYTES)
                Path(value).open("rb").close()
            except OSError as error:
                raise ValueError(f"{name}: {explained(error)}") from None
    return dsn


def _secret_file(path: Path) -> Path:
    try:
        read_secret(path)
    except OSError as error:
        raise ValueError(explained_secret(error)) from None
    return path


def _regular_file(path: Path) -> Path:
    try:
        check_file(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise ValueError(explained(error)) from None
    return path


def _directory(path: Path) -> Path:
    """Refuse what is not a directory, but do not wait for a disk that hangs: the daemon polls without it."""
    is_directory: list[bool] = []

    def look() -> None:
        with contextlib.suppress(OSError):  # it does not exist yet
            is_directory.append(S_ISDIR(path.stat().st_mode))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_DISK_SECONDS)
    if is_directory == [False]:
        raise ValueError(f"{path} is not a directory")
    return path


def _masked(dsn: SecretStr) -> str:
    return masked_dsn(dsn.get_secret_value())


class ServerSettings(BaseModel):
    """One PostgreSQL server to watch."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    name: Annotated[str, AfterValidator(_printable)]
    """Name of the server in metrics, logs and pages. Default: its host:port."""

    dsn: Annotated[SecretStr, AfterValidator(_usable_dsn), PlainSerializer(_masked)] | None = None
    """Connection string: a URI such as postgresql://user@host:5432/database, or 'host=db user=x dbname=y'.
    Default: libpq's variables (PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD, PGPASSFILE, PGSERVICE, PGSSLMODE ...),
    else DATABASE_URL or DATA_SOURCE_NAME."""

    password_file: Annotated[Path, AfterValidator(_secret_file)] | None = None
    """File with the password. It is read at each connect, so the password can change."""

    allow_cleartext_password: Annotated[Literal["no", "yes"], BeforeValidator(_yes_or_no)] = "no"  # noqa: S105  # no password
    """Whether to send the password in clear text if the server asks for that without TLS. Over TLS and over Unix
    sockets it is sent anyway. Default: no."""

    @property
    def route(self) -> Route:
        """How to reach the server: what the driver is told, and what we decide ourselves."""
        return route_of(self.dsn.get_secret_value() if self.dsn else None, os.environ)

    @model_validator(mode="after")
    def _check_route(self) -> Self:
        route_of(self.dsn.get_secret_value() if self.dsn else None, os.environ)
        return self


def _uri_template(template: str) -> str:
    check_template(template)
    example = filled(template, defaultdict(lambda: "x"), "db:5432", in_uri=True)
    if not example.startswith(("postgresql://", "postgres://")):
        raise ValueError("must be a URI such as postgresql://pgwatch_sessions@{target}/postgres")
    if parse_dsn(example).get("password"):
        raise ValueError("has a password in it; write it into a file and name it as password_file")
    return template


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL such as https://inventory.example/targets")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a login in it; write basic_auth or authorization instead")
    return url


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)


class BasicAuthSettings(_Section):
    """A login at an HTTP server."""

    username: str
    """Name of the user."""

    password_file: Annotated[Path, AfterValidator(_secret_file)]
    """File with the password. It is read at each request."""


class AuthorizationSettings(_Section):
    """A token for an HTTP server."""

    credentials_file: Annotated[Path, AfterValidator(_secret_file)]
    """File with the bearer token. It is read at each request."""


class TlsSettings(_Section):
    """Certificates for an HTTP server."""

    ca_file: Annotated[Path, AfterValidator(_regular_file)] | None = None
    """Certificates of the authorities that are trusted. Default: those of the system."""

    cert_file: Annotated[Path, AfterValidator(_regular_file)] | None = None
    """Own certificate."""

    key_file: Annotated[Path, AfterValidator(_regular_file)] | None = None
    """Key of the own certificate. Default: in cert_file."""


class ServersFromSettings(_Section):
    """Servers that are found by Prometheus' file_sd or http_sd."""

    file_sd: Annotated[tuple[str, ...], BeforeValidator(_patterns), PlainSerializer(", ".join)] = ()
    """Files with target groups, in JSON or YAML (.yml, .yaml); shell patterns are allowed."""

    http_sd: Annotated[str, AfterValidator(_http_url)] | None = None
    """URL that answers with target groups in JSON."""

    basic_auth: BasicAuthSettings | None = None
    """Login for http_sd."""

    authorization: AuthorizationSettings | None = None
    """Token for http_sd."""

    tls_config: TlsSettings | None = None
    """Certificates for http_sd."""

    refresh_interval: Annotated[float, duration("1s", "1h")] = 60.0
    """Time between two reads."""

    name: Annotated[str, AfterValidator(check_template)] = f"{{{TARGET}}}"
    """Template of the servers' names. {target} stands for the target's host:port, {cluster} for its label cluster."""

    dsn: Annotated[str, AfterValidator(_uri_template)]
    """Template of the servers' connection URIs, such as postgresql://pgwatch_sessions@{target}/postgres."""

    password_file: Annotated[Path, AfterValidator(_secret_file)] | None = None
    """File with the password of all these servers. It is read at each connect."""

    @property
    def place(self) -> str:
        """What it reads, for logs."""
        return self.http_sd or ", ".join(self.file_sd)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if bool(self.file_sd) == (self.http_sd is not None):
            raise ValueError("needs one of file_sd and http_sd")
        if self.file_sd and (self.basic_auth or self.authorization or self.tls_config):
            raise ValueError("basic_auth, authorization and tls_config are for http_sd")
        if self.basic_auth and self.authorization:
            raise ValueError("basic_auth and authorization exclude each other; keep one")
        return self

    @model_serializer(mode="wrap")
    def _given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in serialize(self).items() if value not in {None, ""}}


class HoldLimitSettings(BaseModel):
    """A limit for holds at certain sites."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    application: Annotated[str, AfterValidator(_pattern)] | None = None
    """Shell pattern of the application_name. Default: every application."""

    site: Annotated[str, AfterValidator(_pattern)] | None = None
    """Shell pattern of the site, as findings show it. Default: every site."""

    limit: Annotated[float, duration("1s", "168h")]
    """How long a session may be held there."""

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.application is None and self.site is None:
            raise ValueError("needs application, site or both; for all sessions, set hold_limit")
        return self

    @model_serializer(mode="wrap")
    def _given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class Settings(BaseSettings):
    """Everything that can be set. The text below a setting is printed by `--help` and by the documentation."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,
        case_sensitive=True,  # in the configuration file
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,  # lists are written with commas, not in JSON
    )

    servers: tuple[ServerSettings, ...]
    """The servers to watch, each with name, dsn and password_file.
    Only in the configuration file, and instead of the name, dsn and password_file of one server."""

    servers_from: tuple[ServersFromSettings, ...] = ()
    """Where more servers are found: a list of file_sd or http_sd, each with a template of their names and DSNs.
    Only in the configuration file."""

    shard: Shard | None = None
    """Which share of the servers this daemon watches, if several daemons have the same list: 2/5 for the second of
    five, or ordinal/5 in a StatefulSet of five pods. Default: all."""

    listen: Address = DEFAULT_LISTEN
    """Address of the web server: host:port, [::1]:9488, or :9488 for all interfaces."""

    metrics_listen: Address | None = None
    """Second address, which serves only /metrics, /healthz and /readyz, so that the page with its statement texts can
    stay on 127.0.0.1. Default: none."""

    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_patterns), PlainSerializer(", ".join)] = ()
    """Names (shell patterns, comma-separated) under which the page may be opened besides localhost and its address.
    Default: no others if it listens on this machine only; any name if it listens for other machines. They do not matter
    if clients must log in, and for /metrics, /healthz and /readyz."""

    web_config: Annotated[Path, AfterValidator(_regular_file)] | None = None
    """YAML file with TLS and passwords for both addresses, in the format of Prometheus exporters. It is read again when
    it or a certificate changes. Default: plain HTTP without passwords."""

    interval: Annotated[float, duration("100ms", "1h")] = 10.0
    """Time between polls."""

    timeout: Annotated[float, duration("100ms", "10m")] = 5.0
    """Deadline of a poll, including connecting."""

    hold_limit: Annotated[float, duration("1s", "168h")] = _POLICY.hold_limit
    """How long a session may be held before it is reported as a finding."""

    hold_limits: tuple[HoldLimitSettings, ...] = ()
    """Other limits for certain places: a list of application, site and limit. The first that matches counts.
    Only in the configuration file."""

    growth_window: Annotated[float, duration("1s", "168h")] = _POLICY.growth_window
    """Period over which growth is measured for forecasts."""

    horizon: Annotated[float, duration("1s", "168h")] = _POLICY.horizon
    """If connections are forecast to run out within this time, that is critical."""

    max_clients: Annotated[int, count(1, 10_000)] = _POLICY.max_clients
    """Number of clients per server with metrics of their own. The others are added up as one client, `other`."""

    tools: Annotated[tuple[str, ...], BeforeValidator(_patterns), PlainSerializer(", ".join)] = _POLICY.tools
    """Application names (shell patterns, comma-separated) of consoles, dumps, backups and the like.
    Their sessions are counted, but reported only when they block others or hold back vacuum."""

    statements: Annotated[Literal["redacted", "off"], BeforeValidator(_off)] = "redacted"
    """Statement texts: redacted (without literals), or off (no statement text and no tag anywhere)."""

    record_dir: Annotated[Path, AfterValidator(_directory)] | None = None
    """Directory in which polls are recorded while running. Default: no recording."""

    record_max_bytes: Annotated[int, size("1MiB", "1024GiB")] = 64 * 2**20
    """Maximum size of all recordings. The oldest are deleted first."""

    state_dir: Annotated[Path, AfterValidator(_directory)] | None = None
    """Directory in which findings, counters and habits are kept across a restart, one file per server.
    Default: a restart begins anew."""

    reload: Literal["signal", "watch"] = "signal"
    """When a running daemon reads its configuration again: on SIGHUP (signal), or also when one of its files changes
    (watch)."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """Log format: json, console, or auto (console on a terminal, otherwise json)."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log events to write."""

    @property
    def may_have_several(self) -> bool:
        """Whether there may be more than one server."""
        return len(self.servers) > 1 or bool(self.servers_from)

    @property
    def policy(self) -> Policy:
        """The thresholds, for the core."""
        values = {field.name: getattr(self, field.name) for field in fields(Policy)}
        return Policy(**values | {"hold_limits": tuple(ConfiguredLimit(**dict(each)) for each in self.hold_limits)})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the library's signature
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the sources that `load` passes as the argument `sources`, and no others."""
        return tuple(init_settings().get("sources", ()))

    @model_validator(mode="before")
    @classmethod
    def _list_servers(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Make a list of the one server that is given by `name`, `dsn` and `password_file`."""
        one = {name: values[name] for name in ServerSettings.model_fields if values.get(name) is not None}
        others = {name: value for name, value in values.items() if name not in ServerSettings.model_fields}
        if "servers" not in values and not one and values.get("servers_from"):
            return {**others, "servers": ()}
        if "servers" not in values:
            return {**others, "servers": _named([one])}
        conflict = Wrong("conflicts with `servers`; set one server by name, dsn and password_file, or use servers")
        return {**others, **dict.fromkeys(one, conflict), "servers": _named(values["servers"])}


class OneServerSettings(Settings, ServerSettings):  # type: ignore[misc]  # for its fields only, so either's config does
    """What command line, environment and secret files can set: instead of the list, the settings of one server."""


def _named(servers: Any) -> Any:
    """Give each server a name: its own, else host and port of its DSN. Mark names that are used twice as wrong."""
    if servers == []:
        return Wrong("must not be empty; remove it to watch the one server of libpq's variables")
    if not isinstance(servers, list):
        return servers
    named = [
        {**server, "name": _name(server, index)} if isinstance(server, dict) else server
        for index, server in enumerate(servers)
    ]
    names: set[str] = set()
    for server in named:
        if isinstance(server, dict) and isinstance(name := server["name"], str):
            if name in names:
                server["name"] = Wrong(f"duplicate server name {name}; give each server a name of its own")
            names.add(name)
    return named


def _name(server: dict[str, Any], index: int) -> object:
    if server.get("name") is not None:
        return server["name"]
    try:
        dsn = server.get("dsn")
        return server_name({} if dsn is None else parse_dsn(str(dsn)), os.environ)[:_MAX_NAME]
    except ValueError:  # reported when the DSN itself is checked
        return f"servers[{index}]"


#: Settings that are lists of mappings, with what each item has. Only the configuration file can set them.
LISTS: dict[str, type[BaseModel]] = {
    "servers": ServerSettings,
    "servers_from": ServersFromSettings,
    "hold_limits": HoldLimitSettings,
}


def leaves(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield path and field of each setting that is one value, those in sections included; not `LISTS`."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, (*above, name))
        elif above or name not in LISTS:
            yield (*above, name), field


def model_at(path: Iterable[str | int]) -> type[BaseModel]:
    """Return the model of the mapping at a path such as ("servers", 0), or of the nearest one around it."""
    model: type[BaseModel] = OneServerSettings
    for name in path:
        if isinstance(name, str) and name in model.model_fields:
            model = next(_models_in(model.model_fields[name].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


#: Settings that command line, environment and secret files can set.
SCALARS: dict[tuple[str, ...], FieldInfo] = dict(leaves(OneServerSettings))
