"""The messages about connections that were left out, as values."""

from typing import Any

from pgwatch_sessions.pools.sites import CodePlace
from pgwatch_sessions.pools.testing.borrows import Borrow, Owner
from pgwatch_sessions.pools.testing.report import ADVICE, leak_line, leak_lines, load_text


def read_order() -> None:
    """Have code, so that there is a place."""


HERE = f"{__file__.rpartition('/tests/')[2]}:{read_order.__code__.co_firstlineno} in read_order"


def borrow(number: int = 1, *, place: CodePlace | None = (read_order.__code__, 0), **fields: Any) -> Borrow:
    """Return a borrow."""
    values = {"kind": "SQLAlchemy connection, taken", "owner": None, "thread": 1, "connection": number} | fields
    return Borrow(number=number, place=place, is_out=lambda: True, **values)


def test_a_line_has_what_is_known() -> None:
    """The place, the fixture, and how it came back."""
    line = f"SQLAlchemy connection, taken at tests/{HERE}"
    assert leak_line(borrow()) == line
    fixture = Owner(node=None, during="for the module fixture `database`")
    assert leak_line(borrow(owner=fixture)) == f"{line} for the module fixture `database`"
    assert leak_line(borrow(collected=True)) == f"{line}; the garbage collector returned it, the code did not"
    assert leak_line(borrow(place=None)).endswith("taken by a library, no line of the application is known")


def test_places_are_counted() -> None:
    """A thousand leaks of one line are one line, and many places are cut."""
    assert leak_lines([borrow(), borrow(2)]) == [f"{leak_line(borrow())} (2 times)"]
    many = leak_lines(borrow(number, kind=f"connection {number}, taken") for number in range(25))
    assert len(many) == 21
    assert many[-1] == "… and 5 other places"


def test_the_text_of_a_load() -> None:
    """Numbers have their nouns."""
    assert load_text([borrow()], calls=1) == f"1 call left 1 connection out:\n  {leak_line(borrow())}\n  {ADVICE}"
    assert load_text([borrow()] * 3, calls=9).startswith("9 calls left 3 connections out:\n")
