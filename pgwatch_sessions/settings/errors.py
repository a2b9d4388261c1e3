"""What is wrong with the settings: every mistake with its place and what to do, and never a secret."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

#: Where a value stands: names of mappings, indexes of lists.
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingError:
    """One mistake."""

    #: For a person: `--interval`, `environment variable PGWATCH_SESSIONS_INTERVAL`, `config.yaml: line 3: interval`.
    place: str
    #: What is wrong and what to do.
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class SettingsError(Exception):
    """The settings cannot be used, for all of these reasons."""

    def __init__(self, errors: tuple[SettingError, ...]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


def dotted(path: Path) -> str:
    """Return `servers[1].dsn`; a key that does not look like one is not shown, since a DSN may have slipped there."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]{1,60}", part) else "…")
    return text


def not_a_setting(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Say that a name is unknown, and which one may have been meant; a prefix that all have makes none alike."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"is not a setting; did you mean {prefix}{close[0]}?" if close else "is not a setting; remove it"
