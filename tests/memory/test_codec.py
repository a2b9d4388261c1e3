"""The codec, with values of every shape that it writes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.memory.codec import Codec


class Colour(StrEnum):
    """An enum whose values are texts."""

    RED = "red"
    BLUE = "blue"


class Size(Enum):
    """An enum whose values are numbers."""

    SMALL = 1
    LARGE = 2


class Key(NamedTuple):
    """What can be a key of a mapping."""

    name: str
    colour: Colour | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """A dataclass with one field."""

    number: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A dataclass with every shape."""

    flag: bool
    count: int | None
    size: Size
    singles: tuple[Single, ...]
    pair: tuple[str, Single]
    by_key: Mapping[Key | None, tuple[Key, ...]]
    by_name: Mapping[str, Mapping[int, float]]


KEYS = st.builds(Key, name=st.text(), colour=st.none() | st.sampled_from(Colour))
SINGLES = st.builds(Single, number=st.floats(allow_nan=False))
WHOLES = st.builds(
    Whole,
    flag=st.booleans(),
    count=st.none() | st.integers(),
    size=st.sampled_from(Size),
    singles=st.lists(SINGLES).map(tuple),
    pair=st.tuples(st.text(), SINGLES),
    by_key=st.dictionaries(st.none() | KEYS, st.lists(KEYS).map(tuple)),
    by_name=st.dictionaries(st.text(), st.dictionaries(st.integers(), st.floats(allow_nan=False))),
)
CODEC = Codec(Whole, shared=(Key, Single))


def through_json(codec: Codec[Whole], value: Whole) -> Whole:
    """Return the value as it is read from what was written."""
    return codec.read(json.loads(json.dumps(codec.write(value))))


@given(WHOLES)
def test_what_was_written_is_read_as_an_equal_value(value: Whole) -> None:
    """That holds with and without shared types, and mappings keep their order."""
    for codec in (CODEC, Codec(Whole)):
        read = through_json(codec, value)
        assert read == value
        assert list(read.by_key) == list(value.by_key)
        assert list(map(type, read.by_key)) == list(map(type, value.by_key))


def test_shared_values_are_written_once_and_read_as_one_object() -> None:
    """Several fields may hold the same object."""
    single = Single(number=math.inf)
    value = Whole(
        flag=True, count=None, size=Size.LARGE, singles=(single, single), pair=("x", single), by_key={}, by_name={}
    )
    shared, _ = CODEC.write(value)
    assert shared == [(1, [math.inf])]
    read = through_json(CODEC, value)
    assert read.singles[0] is read.singles[1] is read.pair[1]


def test_the_fingerprint_changes_with_the_shape() -> None:
    """A field with another name or type anywhere inside, is another shape."""

    class Other(NamedTuple):
        name: str

    same, renamed = NamedTuple("Other", [("name", str)]), NamedTuple("Other", [("title", str)])
    retyped, more = NamedTuple("Other", [("name", int)]), NamedTuple("Other", [("name", Colour)])
    prints = [Codec(Mapping[str, each]).fingerprint for each in (Other, same, renamed, retyped, more)]  # type: ignore[valid-type, type-abstract]
    assert prints[0] == prints[1]
    assert len(set(prints)) == len(prints) - 1


@pytest.mark.parametrize("shape", [list[int], object, int | str, Mapping[str, set[int]]])
def test_what_cannot_be_written_is_refused_at_once(shape: type) -> None:
    """Nothing fails only when the first such value is written."""
    with pytest.raises(TypeError):
        Codec(shape)
