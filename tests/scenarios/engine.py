"""Discrete-event simulation: a process is a generator that yields how long it sleeps, or what it waits for."""

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Wait:
    """What one process waits for until somebody wakes it."""

    __slots__ = ("process",)

    def __init__(self) -> None:
        self.process: Process[Any] | None = None


#: Yields seconds to sleep, or a Wait whose waker sends the value.
Process = Generator[float | Wait, Any, T]


class Simulation:
    """The time, the chance, and what happens next."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, time: float, action: Callable[[], object]) -> None:
        """Let this happen then, or now if then is over."""
        heappush(self._agenda, (max(time, self.now), next(self._order), action))

    def start(self, process: Process[Any]) -> None:
        """Run a process up to where it first sleeps or waits."""
        self._go_on(process, None)

    def start_at(self, time: float, process: Process[Any]) -> None:
        """Start a process then."""
        self.at(time, lambda: self._go_on(process, None))

    def wake(self, wait: Wait, value: object) -> bool:
        """Send the value to the process that waits; whether there still was one."""
        process, wait.process = wait.process, None
        if process is None:
            return False
        self._go_on(process, value)
        return True

    def wait(self, wait: Wait, *, at_most: float | None) -> Process[Any]:
        """Wait, and return the value sent; None when time runs out."""
        if at_most is not None:
            self.at(self.now + at_most, lambda: self.wake(wait, None))
        return (yield wait)

    def run_until(self, time: float) -> None:
        """Let everything happen that happens up to this time."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= time:
            self.now, _, action = heappop(agenda)
            action()
        self.now = time

    def _go_on(self, process: Process[Any], value: object) -> None:
        try:
            wanted = process.send(value)
        except StopIteration:
            return
        if isinstance(wanted, Wait):
            wanted.process = process
        else:
            heappush(self._agenda, (self.now + wanted, next(self._order), lambda: self._go_on(process, None)))
