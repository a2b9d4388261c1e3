"""Turns values into JSON and back, as their type hints say.

The types may be dataclasses, NamedTuples, enums, tuples, frozensets and mappings.
Values are arrays of their fields, without names, and mappings are arrays of pairs, because their keys are often tuples.
So a document can be read only with the shapes that it was written with: `fingerprint` identifies them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

#: JSON has these itself. Python's JSON also has infinity.
_PLAIN = frozenset({bool, int, float, str, NoneType})


class _Shared:
    """The values that a document holds once, however often they occur, in the order in which they are written."""

    def __init__(self) -> None:
        self.written: list[tuple[int, Any]] = []
        #: By `id`. The document's value keeps all of them alive meanwhile.
        self.numbers: dict[int, int] = {}


class _Form(NamedTuple):
    """How values of one shape are written and read."""

    write: Callable[[Any, _Shared], Any]
    #: The second argument has the shared values that were read already.
    read: Callable[[Any, list[Any]], Any]
    #: Names the shape and everything in it, for the fingerprint.
    name: str


#: Takes the values of the fields from a value, and makes a value from them.
_Values = Callable[[Any], Iterable[Any]]
_Make = Callable[[list[Any]], Any]


def _as_it_is(value: Any, _: object) -> Any:
    """Write or read a value that JSON has itself. Callers compare with this function to leave out the call."""
    return value


class Codec(Generic[T]):
    """Writes and reads values of one shape."""

    def __init__(self, shape: type[T], *, shared: tuple[type, ...] = ()) -> None:
        """Prepare for a shape; TypeError if it holds anything that cannot be written.

        Values of the `shared` types are written once. One of them may contain only those before it.
        """
        self._forms: dict[Any, _Form] = {}
        self._shared: list[_Form] = []
        for each in shared:
            self._share(each)
        self._form = self._form_of(shape)
        self.fingerprint = hashlib.sha256(self._form.name.encode()).hexdigest()[:16]

    def write(self, value: T) -> list[Any]:
        """Return a value as a JSON document."""
        shared = _Shared()
        written = self._form.write(value, shared)
        return [shared.written, written]

    def read(self, document: Any) -> T:
        """Return the value of a document that was written with the same fingerprint.

        ValueError, TypeError, LookupError or AttributeError if it was not.
        """
        shared: list[Any] = []
        written, value = document
        for number, each in written:
            shared.append(self._shared[number].read(each, shared))
        read: T = self._form.read(value, shared)
        return read

    def _share(self, shape: type) -> None:
        own, number = self._form_of(shape), len(self._shared)
        self._shared.append(own)

        def write(value: Any, shared: _Shared) -> int:
            known = shared.numbers.get(id(value))
            if known is None:
                written = own.write(value, shared)
                known = shared.numbers[id(value)] = len(shared.written)
                shared.written.append((number, written))
            return known

        self._forms[shape] = _Form(write, lambda value, shared: shared[value], own.name)

    def _form_of(self, shape: Any) -> _Form:
        if shape not in self._forms:
            self._forms[shape] = self._new_form(shape)
        return self._forms[shape]

    def _new_form(self, shape: Any) -> _Form:
        kind, parts = get_origin(shape) or shape, get_args(shape)
        if kind in _PLAIN:
            return _Form(_as_it_is, _as_it_is, kind.__name__)
        if kind in {Union, UnionType}:
            return self._optional(shape)
        if kind in {Mapping, tuple, frozenset}:
            return self._collection(kind, parts)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return _enum(kind)
        return self._fielded(kind)

    def _collection(self, kind: Any, parts: tuple[Any, ...]) -> _Form:
        if kind is Mapping:
            return _mapping(*map(self._form_of, parts))
        if kind is frozenset or parts[1:] == (...,):
            return _series(self._form_of(parts[0]), kind)
        return _record(tuple, tuple, list(map(self._form_of, parts)), "tuple")

    def _optional(self, shape: Any) -> _Form:
        others = [each for each in get_args(shape) if each is not NoneType]
        if len(others) != 1:
            raise TypeError(f"{shape}: of the types in a union, only one may be other than None")
        form = self._form_of(others[0])
        return _Form(
            _as_it_is if form.write is _as_it_is else lambda v, shared: None if v is None else form.write(v, shared),
            _as_it_is if form.read is _as_it_is else lambda v, shared: None if v is None else form.read(v, shared),
            f"{form.name}?",
        )

    def _fielded(self, kind: Any) -> _Form:
        names, values, make = _fields_of(kind)
        hints = get_type_hints(kind)
        forms = [self._form_of(hints[name]) for name in names]
        described = ",".join(f"{name}:{form.name}" for name, form in zip(names, forms, strict=True))
        return _record(values, make, forms, f"{kind.__name__}({described})")


def _fields_of(kind: Any) -> tuple[Sequence[str], _Values, _Make]:
    """Return the names of a type's fields, and how its values become the values of the fields and back."""
    if hasattr(kind, "_fields"):  # a NamedTuple
        return kind._fields, tuple, kind._make
    build: Any = kind
    if not is_dataclass(kind):
        raise TypeError(f"{kind}: values of this type cannot be written")
    names = [field.name for field in fields(kind)]
    getter = attrgetter(*names)
    return (
        names,
        getter if len(names) > 1 else lambda value: (getter(value),),
        lambda read: build(**dict(zip(names, read, strict=True))),
    )


def _enum(kind: type[Enum]) -> _Form:
    members = ",".join(f"{each.name}={each.value}" for each in kind)
    return _Form(lambda value, _: value.value, lambda value, _: kind(value), f"{kind.__name__}[{members}]")


def _record(values: Callable[[Any], Any], make: Callable[[list[Any]], Any], forms: list[_Form], name: str) -> _Form:
    """Return the form of a value with fields: `values` takes them from it, `make` makes it from them."""

    def write(value: Any, shared: _Shared) -> list[Any]:
        return [
            field if form.write is _as_it_is else form.write(field, shared)
            for form, field in zip(forms, values(value), strict=True)
        ]

    def read(value: Any, shared: list[Any]) -> Any:
        return make(
            [
                field if form.read is _as_it_is else form.read(field, shared)
                for form, field in zip(forms, value, strict=True)
            ]
        )

    return _Form(write, read, name)


def _series(form: _Form, make: Callable[[list[Any]], Any]) -> _Form:
    return _Form(
        lambda values, shared: [form.write(each, shared) for each in values],
        lambda values, shared: make([form.read(each, shared) for each in values]),
        f"{make.__name__}:{form.name}*",
    )


def _mapping(key: _Form, value: _Form) -> _Form:
    return _Form(
        lambda pairs, shared: [(key.write(k, shared), value.write(v, shared)) for k, v in pairs.items()],
        lambda pairs, shared: {key.read(k, shared): value.read(v, shared) for k, v in pairs},
        f"{{{key.name}:{value.name}}}",
    )
