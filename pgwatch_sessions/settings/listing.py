"""The list of settings, for `--help` and for the documentation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pgwatch_sessions.settings.address import Address
from pgwatch_sessions.settings.model import SCALARS, Settings
from pgwatch_sessions.settings.quantities import Quantity
from pgwatch_sessions.settings.sharding import Shard
from pgwatch_sessions.settings.sources import option, variable

#: By type, for types that are neither quantities nor choices.
_PLACEHOLDERS: dict[Any, str] = {str: "TEXT", Path: "PATH", SecretStr: "URI", Address: "ADDRESS", Shard: "SHARD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingInfo:
    """What a user needs to know about a setting."""

    name: str
    option: str
    variable: str
    #: Stands for the value in help texts, for example DURATION.
    placeholder: str
    #: As a user would write it; None where there is none.
    default: str | None
    description: str


def describe() -> tuple[SettingInfo, ...]:
    """Return every setting that the command line and the environment can give, in the order of the help."""
    return tuple(
        SettingInfo(
            name=".".join(path),
            option=option(path),
            variable=variable(path),
            placeholder=_placeholder(field),
            default=_default(path),
            description=" ".join((field.description or "").split()),
        )
        for path, field in SCALARS.items()
    )


def _placeholder(field: FieldInfo) -> str:
    for note in field.metadata:
        if isinstance(note, Quantity):
            return note.placeholder
    kind = field.annotation
    while get_origin(kind) is not Literal and get_args(kind):
        kind = get_args(kind)[0]  # X of X | None, Annotated[X, ...] and tuple[X, ...]
    return _PLACEHOLDERS.get(kind) or f"{{{','.join(get_args(kind))}}}"


def _default(path: tuple[str, ...]) -> str | None:
    value: Any = Settings.model_construct(servers=()).model_dump(mode="json")
    for name in path:
        value = value.get(name)
    return None if value is None else str(value)
