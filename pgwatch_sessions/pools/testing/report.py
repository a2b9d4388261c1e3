"""What is said about connections that were left out."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pgwatch_sessions.pools.testing.borrows import Borrow

#: More lines than these are counted only.
_MOST_LINES = 20
#: Closes each message.
ADVICE = "Return or close it in a `with` or `async with` block, or in a fixture's teardown."
_COLLECTED = "; the garbage collector returned it, the code did not"


def load_text(leaks: Sequence[Borrow], *, calls: int) -> str:
    """Return the message about calls of which some left connections out."""
    lines = [*leak_lines(leaks), ADVICE]
    return "\n".join(
        (f"{counted(calls, 'call')} left {counted(len(leaks), 'connection')} out:", *(f"  {each}" for each in lines))
    )


def test_text(left: Iterable[str]) -> str:
    """Return the message about a test. Its first line is what pytest's summary shows, so it has no heading."""
    return "\n".join((*(f"left out: {line}" for line in left), ADVICE))


def failure_text(traceback: str) -> str:
    """Return the message about a mistake of the check itself."""
    return f"the check for connection leaks has failed, and may have missed some:\n{traceback}"


def leak_lines(leaks: Iterable[Borrow]) -> list[str]:
    """Return a line for each place that took connections, with how many."""
    places = Counter(map(leak_line, leaks))
    lines = [f"{line} ({number} times)" if number > 1 else line for line, number in places.items()]
    return (
        lines if len(lines) <= _MOST_LINES else [*lines[:_MOST_LINES], f"… and {len(lines) - _MOST_LINES} other places"]
    )


def leak_line(leak: Borrow) -> str:
    """Return `SQLAlchemy connection, taken at orders.py:41 in read_order`, and what else is known."""
    place = f"at {leak.site}" if leak.site is not None else "by a library, no line of the application is known"
    during = f" {leak.owner.during}" if leak.owner is not None and leak.owner.during else ""
    return f"{leak.kind} {place}{during}{_COLLECTED if leak.collected else ''}"


def counted(number: int, noun: str) -> str:
    """Return `1 connection` or `3 connections`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
