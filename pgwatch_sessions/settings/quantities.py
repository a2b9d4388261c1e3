"""Durations, sizes and counts: parse `10s` or `64MiB`, check the bounds, and write them so that they parse again."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isfinite

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

# Largest unit first: a number is written in the first unit of which it is a whole multiple. Fractions, because
# 0.001 * 700 is not 0.7 in floating point.
_SECONDS: Mapping[str, Fraction] = {
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
}
_BYTES: Mapping[str, Fraction] = {
    "GiB": Fraction(2**30),
    "MiB": Fraction(2**20),
    "KiB": Fraction(2**10),
    "B": Fraction(1),
}
_AMOUNT = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Annotates a field with the unit and the inclusive bounds of its number."""

    #: Stands for the value in help texts.
    placeholder: str
    read: Callable[[object], float]
    write: Callable[[float], object]
    at_least: float
    at_most: float

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._bounded, serialization=core_schema.plain_serializer_function_ser_schema(self.write)
        )

    def _bounded(self, value: object) -> float:
        number = self.read(value)
        if not self.at_least <= number <= self.at_most:
            bounds = f"from {self.write(self.at_least)} to {self.write(self.at_most)}"
            raise ValueError(f"must be {bounds}, not {self.write(number)}")
        return number


def duration(at_least: str, at_most: str) -> Quantity:
    """Annotate a float in seconds."""
    return Quantity("DURATION", read_duration, duration_text, read_duration(at_least), read_duration(at_most))


def size(at_least: str, at_most: str) -> Quantity:
    """Annotate an int in bytes."""
    return Quantity("SIZE", read_size, size_text, read_size(at_least), read_size(at_most))


def count(at_least: int, at_most: int) -> Quantity:
    """Annotate an int."""
    return Quantity("NUMBER", read_count, int, at_least, at_most)


def read_duration(value: object) -> float:
    """Return seconds. `value` is a number of seconds, or text such as `10s`, `5m`, `1h`, `500ms`."""
    seconds = _amount(value, _SECONDS, unit="s")
    if seconds is None:
        raise ValueError("must be a duration: seconds, or a number with a unit, such as 500ms, 10s, 5m, 1h")
    return float(seconds)


def duration_text(seconds: float) -> str:
    """Return the shortest text that `read_duration` parses to the same number."""
    return _text(seconds, _SECONDS, unit="s")


def read_size(value: object) -> int:
    """Return bytes. `value` is a number of bytes, or text such as `64MiB`."""
    amount = _amount(value, _BYTES, unit="B")
    if amount is None or amount.denominator != 1:
        raise ValueError("must be a size: bytes, or a number with a unit, such as 512KiB, 64MiB, 1GiB")
    return int(amount)


def size_text(number: float) -> str:
    """Return the shortest text that `read_size` parses to the same number."""
    return _text(number, _BYTES, unit="B")


def read_count(value: object) -> int:
    """Return a whole number. `value` is a number, or text from the environment or the command line."""
    amount = _amount(value, {"": Fraction(1)}, unit="")
    if amount is None or amount.denominator != 1:
        raise ValueError("must be a whole number of at least 0")
    return int(amount)


def _amount(value: object, units: Mapping[str, Fraction], *, unit: str) -> Fraction | None:
    """Return the amount in base units, None if it is invalid. `unit` is used if the text has no unit."""
    if isinstance(value, bool):  # bool is a subclass of int, but `interval: yes` is an error
        return None
    if isinstance(value, int | float):
        return Fraction(repr(value)) if isfinite(value) and value >= 0 else None
    if not isinstance(value, str) or not (match := _AMOUNT.fullmatch(value.strip())):
        return None
    factor = units.get(match[2] or unit)
    return None if factor is None else Fraction(match[1]) * factor


def _text(number: float, units: Mapping[str, Fraction], *, unit: str) -> str:
    amount = Fraction(repr(number))
    for name, factor in units.items():
        if amount >= factor and (amount / factor).denominator == 1:
            return f"{amount // factor}{name}"
    return f"{Decimal(repr(number)).normalize():f}{unit}"
