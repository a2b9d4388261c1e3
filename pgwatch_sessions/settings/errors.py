"""Errors in the settings. Each has a place, says what is wrong and what to do, and never shows a secret."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

#: The way to a value in nested settings: names in mappings, indexes in lists. Example: `("servers", 1, "dsn")`.
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingError:
    """One error."""

    #: `--interval`, `environment variable PGWATCH_SESSIONS_INTERVAL` or `config.yaml line 3: interval`.
    place: str
    #: What is wrong and what to do: `unknown setting; did you mean interval?`.
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class SettingsError(Exception):
    """The settings cannot be used. `errors` has all reasons, not only the first."""

    def __init__(self, errors: tuple[SettingError, ...]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


class PlacedError(ValueError):
    """A value cannot be used because of something in another place, such as a service file that it names."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message


def dotted(path: KeyPath) -> str:
    """Return a key path as text, for example `servers[1].dsn`.

    Keys with unusual characters become `…`: a DSN with its password may have been written where a key belongs.
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]{1,60}", part) else "…")
    return text


def not_a_setting(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return the message for an unknown name, with the known name that is most similar.

    `prefix` is what all known names begin with. It is not compared, because it would make all names similar.
    """
    by_text = {each.removeprefix(prefix).lower(): each for each in known}
    similar = get_close_matches(name.removeprefix(prefix).lower(), by_text, n=1)
    return f"unknown setting; did you mean {by_text[similar[0]]}?" if similar else "unknown setting; remove it"
