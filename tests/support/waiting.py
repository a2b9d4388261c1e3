"""Waiting for a condition, where a sleep would be a guess."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, within: float = 10.0) -> T:
    """Return the condition's first true value; AssertionError after so many seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {within} s"
        time.sleep(0.01)
    return value
