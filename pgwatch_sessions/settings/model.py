"""The settings: the one home of their names, types, bounds, defaults and descriptions."""

from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    field_serializer,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pgwatch_sessions.core.judging.maintenance_tools import KNOWN_TOOLS
from pgwatch_sessions.settings.address import DEFAULT_LISTEN
from pgwatch_sessions.settings.address import Address as Address  # noqa: PLC0414  # the package takes it from here
from pgwatch_sessions.settings.dsn import check_dsn, masked_dsn
from pgwatch_sessions.settings.quantities import count, duration, size
from pgwatch_sessions.settings.secret_files import explained, explained_secret, read_secret

#: Of a server; it is a label of every series.
NAME_LENGTH = 200
#: libpq's parameters that name files; the driver would find out that one is missing at each connect.
_FILES_OF_DSN = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl"})


def _off(value: object) -> object:
    return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false


def _patterns(value: object) -> object:
    """Read patterns as a list, or as one text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _printable(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > NAME_LENGTH:
        raise ValueError(f"must be 1 to {NAME_LENGTH} printable characters")
    return name


def _usable_dsn(dsn: SecretStr) -> SecretStr:
    check_dsn(dsn.get_secret_value())
    for name, value in parse_qsl(urlsplit(dsn.get_secret_value()).query):
        if name in _FILES_OF_DSN:
            try:
                Path(value).open("rb").close()
            except OSError as error:
                raise ValueError(f"has an {name} that cannot be read: {explained(error)}") from None
    return dsn


def _readable(path: Path) -> Path:
    try:
        read_secret(path)
    except OSError as error:
        raise ValueError(explained_secret(error)) from None
    return path


def _a_file(path: Path) -> Path:
    try:
        kind = path.stat().st_mode
    except OSError as error:
        raise ValueError(explained(error)) from None
    if not S_ISREG(kind):  # a pipe would keep the daemon waiting
        raise ValueError(f"{path} is not a file")
    return path


def _not_a_file(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is not a directory")
    return path


class Server(BaseModel):
    """One PostgreSQL server to watch."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, AfterValidator(_printable)] = Field(
        description="How the server is called in metrics, logs and pages. Default: its host:port."
    )
    dsn: Annotated[SecretStr, AfterValidator(_usable_dsn)] | None = Field(
        None,
        description="Connection URI, postgresql://user@host:5432/database. Default: libpq's variables (PGHOST, PGPORT, "
        "PGUSER, PGDATABASE, PGPASSWORD, PGPASSFILE, PGSSLMODE ...).",
    )
    password_file: Annotated[Path, AfterValidator(_readable)] | None = Field(
        None,
        description="File that holds the password; read again at each connect, so that the password can change.",
    )

    @field_serializer("dsn")
    def _masked(self, dsn: SecretStr | None) -> str | None:
        return None if dsn is None else masked_dsn(dsn.get_secret_value())


def _some(servers: tuple[Server, ...]) -> tuple[Server, ...]:
    if not servers:  # pydantic's min_length would not count those that are wrong
        raise ValueError("must not be empty; leave it out to watch the one server of libpq's variables")
    return servers


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `loading` has read: the library's own sources cannot say where a value stood."""
        return (init_settings,)

    servers: Annotated[tuple[Server, ...], AfterValidator(_some)] = Field(
        description="The servers to watch, each with name, dsn and password_file; in the configuration file only, and "
        "instead of the name, dsn and password_file of one server.",
    )
    listen: Address = Field(
        DEFAULT_LISTEN,
        description="Address of the web side: host:port, [::1]:9488, or :9488 for all interfaces.",
    )
    metrics_listen: Address | None = Field(
        None,
        description="A second address, which answers /metrics, /healthz and /readyz and nothing else, so that the page "
        "with its statement texts can stay on 127.0.0.1. Default: none.",
    )
    web_config: Annotated[Path, AfterValidator(_a_file)] | None = Field(
        None,
        description="YAML file that switches on TLS and passwords for both addresses, in the layout of Prometheus "
        "exporters; used anew when it or a certificate changes. Default: neither.",
    )
    interval: Annotated[float, duration("100ms", "1h")] = Field(10.0, description="Time between polls.")
    timeout: Annotated[float, duration("100ms", "10m")] = Field(
        5.0, description="Deadline of a poll, connecting included."
    )
    hold_limit: Annotated[float, duration("1s", "168h")] = Field(
        60.0, description="How long a session may be held before it is a finding."
    )
    growth_window: Annotated[float, duration("1s", "168h")] = Field(
        600.0, description="Time over which growth and forecast are judged."
    )
    horizon: Annotated[float, duration("1s", "168h")] = Field(
        3600.0, description="A forecast exhaustion nearer than this is critical."
    )
    max_clients: Annotated[int, count(1, 10_000)] = Field(
        100, description="Clients per server that get metrics of their own; the rest is folded into one, `other`."
    )
    tools: Annotated[tuple[str, ...], BeforeValidator(_patterns), PlainSerializer(", ".join)] = Field(
        KNOWN_TOOLS,
        description="Application names, as shell patterns separated by commas, of consoles, dumps, backups and the "
        "like: they are counted like everybody, and judged by the harm that they do only.",
    )
    statements: Annotated[Literal["redacted", "off"], BeforeValidator(_off)] = Field(
        "redacted",
        description="Statement texts: redacted (without literals), or off (no statement text anywhere).",
    )
    record_dir: Annotated[Path, AfterValidator(_not_a_file)] | None = Field(
        None, description="Directory to record polls into while running. Default: no recording."
    )
    record_max_bytes: Annotated[int, size("1MiB", "1024GiB")] = Field(
        64 * 2**20, description="Size that the recordings are kept under; the oldest go first."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Form of the log: json, console, or auto (console on a terminal, else json)."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log events that are written."
    )


def leaves(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield path and field of each setting that one value can set, sections included, lists of servers not."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, (*above, name))
        elif kind != tuple[Server, ...]:
            yield (*above, name), field


#: What environment, command line and secret files can set: one server, and everything else but the list of servers.
SCALARS: dict[tuple[str, ...], FieldInfo] = {**dict(leaves(Server)), **dict(leaves(Settings))}
