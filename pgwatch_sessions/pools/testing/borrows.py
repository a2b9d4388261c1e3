"""Which connections the tests have now, and who took each.

Whether a connection is still out is asked of the connection itself when somebody wants to know. Nothing is counted up
and down, so nothing drifts. Connections are referenced weakly, because a strong reference would change what leaks.
"""

import contextlib
import functools
import gc
import itertools
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from pgwatch_sessions.pools.sites import CodePlace, Site, resolve

P = ParamSpec("P")
T = TypeVar("T")

#: How often a connection that another thread may return in a moment is looked at again, in seconds.
_PAUSE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """What was running when a connection was taken: a test, or the setup of a fixture."""

    #: It is only compared and handed back, so that this module knows nothing of pytest.
    node: Any
    #: Completes "taken at orders.py:41 in read_order …"; empty for a test itself.
    during: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrow:
    """A connection that was taken from a pool, or opened without one."""

    #: Increases with each borrow.
    number: int
    #: What it is and how it was taken: `SQLAlchemy connection, taken`.
    kind: str
    place: CodePlace | None
    #: None if it was taken outside of tests, as by a module at its import.
    owner: Owner | None
    thread: int
    is_out: Callable[[], bool]
    #: The `id()` of the driver's connection; of None if the server is not to be asked about it.
    connection: int
    #: It is back, but only because the garbage collector found it.
    collected: bool = False

    @property
    def site(self) -> Site | None:
        """The line that took it; None if no line of the application is known."""
        return None if self.place is None else resolve(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A connection of this process, whether it is in a pool or not."""

    reference: weakref.ref[Any]
    #: The line that took it last.
    place: CodePlace | None


class Borrows:
    """All connections that are out.

    The methods may be called from any thread, and by the garbage collector in the middle of another call. Each changes
    a dictionary in one step.
    """

    def __init__(self) -> None:
        #: What runs now. It is one for all threads, because an application may serve a test in another thread.
        self.owner: Owner | None = None
        #: What went wrong inside of this check; empty if nothing did.
        self.failure = ""
        self._numbers = itertools.count(1)
        self._out: dict[Hashable, Borrow] = {}
        self._connections: dict[int, Opened] = {}
        self._collecting_thread: int | None = None
        gc.callbacks.append(self._on_collection)

    def mark(self) -> int:
        """Return a number between those of the borrows so far and those that follow."""
        return next(self._numbers)

    def safely(self, note: Callable[P, T]) -> Callable[P, T | None]:
        """Return a function that does the same and never raises: a mistake of ours must not break the application."""

        @functools.wraps(note)
        def safe(*arguments: P.args, **named: P.kwargs) -> T | None:
            try:
                return note(*arguments, **named)
            except Exception:  # noqa: BLE001  it is reported with the next test
                self.failure = self.failure or traceback.format_exc()
                return None

        return safe

    def opened(self, connection: object, place: CodePlace | None = None) -> None:
        """Note that a connection was opened, by the application or by a pool, or taken at this place."""
        key = id(connection)
        with contextlib.suppress(TypeError):  # some drivers, such as sqlite3, have connections without weak references
            reference = weakref.ref(connection, lambda _: self._connections.pop(key, None))
            self._connections[key] = Opened(reference=reference, place=place)

    def took(
        self, key: Hashable, *, kind: str, place: CodePlace | None, connection: object, is_out: Callable[[], bool]
    ) -> None:
        """Note that a connection was taken. A later borrow with the same key replaces it."""
        self.opened(connection, place)
        self._out[key] = Borrow(
            number=next(self._numbers),
            kind=kind,
            place=place,
            owner=self.owner,
            thread=threading.get_ident(),
            is_out=is_out,
            connection=id(connection),
        )

    def rename(self, key: Hashable, new: Hashable) -> None:
        """Keep a borrow under another key."""
        borrow = self._out.pop(key, None)
        if borrow is not None:
            self._out[new] = borrow

    def belongs_to(self, key: Hashable, owner: Owner) -> None:
        """Change the owner of a borrow that was taken just now, for something that was made before."""
        borrow = self._out.get(key)
        if borrow is not None and borrow.owner is self.owner:
            self._out[key] = replace(borrow, owner=owner)

    def returned(self, key: Hashable) -> None:
        """Note that a connection is back."""
        self._out.pop(key, None)

    def forgotten(self, key: Hashable) -> None:
        """Note that a connection is back although nobody has returned it.

        If the garbage collector did it, the borrow stays as a leak: the next time the collector may come later. If the
        last reference went away, it would happen in the same way every time, and is no leak.
        """
        borrow = self._out.get(key)
        if borrow is None:
            return
        if self._collecting_thread == threading.get_ident():
            self._out[key] = replace(borrow, collected=True)
        else:
            self._out.pop(key, None)

    def left_out(self, judged: Callable[[Borrow], bool], *, grace: float = 0.0) -> tuple[Borrow, ...]:
        """Return the borrows that nobody has returned, the first one first.

        `grace` is for how many seconds to wait for connections of other threads, as a server has that is about to end
        the request that it has answered.
        """
        deadline = time.monotonic() + grace
        while True:
            left = [borrow for borrow in self._current() if judged(borrow)]
            here = threading.get_ident()
            if all(each.thread == here or each.collected for each in left) or time.monotonic() >= deadline:
                return tuple(left)
            time.sleep(_PAUSE)

    def drop(self, borrows: Collection[Borrow]) -> None:
        """Forget these borrows and their connections, so that each is reported once."""
        numbers = {borrow.number for borrow in borrows}
        for key, borrow in tuple(self._out.items()):
            if borrow.number in numbers:
                self._out.pop(key, None)
                self._connections.pop(borrow.connection, None)

    def connections(self) -> tuple[tuple[Any, Opened], ...]:
        """Return each connection of this process that still exists."""
        found = ((opened.reference(), opened) for opened in tuple(self._connections.values()))
        return tuple((connection, opened) for connection, opened in found if connection is not None)

    def _current(self) -> list[Borrow]:
        for key, borrow in tuple(self._out.items()):
            if not borrow.collected and not borrow.is_out() and self._out.get(key) is borrow:
                self._out.pop(key, None)
        return sorted(self._out.values(), key=lambda borrow: borrow.number)

    def _on_collection(self, phase: str, _info: object) -> None:
        self._collecting_thread = threading.get_ident() if phase == "start" else None
