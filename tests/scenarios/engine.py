"""Discrete-event simulation. A process is a generator that yields seconds to sleep, or a Wait."""

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Wait:
    """Something for which one process waits until another wakes it."""

    __slots__ = ("process",)

    def __init__(self) -> None:
        self.process: Process[Any] | None = None


#: Yields seconds to sleep, or a Wait whose waker sends the value.
Process = Generator[float | Wait, Any, T]


class Simulation:
    """The time, the random numbers, and the scheduled events."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._order = count()
        #: Times, the order of events of the same time, and what goes on then: a process, or an action.
        self._agenda: list[tuple[float, int, Process[Any] | None, Callable[[], object] | None]] = []

    def at(self, time: float, action: Callable[[], object]) -> None:
        """Schedule an action for a time, or for now if that time is over."""
        heappush(self._agenda, (max(time, self.now), next(self._order), None, action))

    def start(self, process: Process[Any]) -> None:
        """Run a process until it first sleeps or waits."""
        self._go_on(process, None)

    def start_at(self, time: float, process: Process[Any]) -> None:
        """Start a process at a time."""
        heappush(self._agenda, (max(time, self.now), next(self._order), process, None))

    def wake(self, wait: Wait, value: object) -> bool:
        """Send the value to the waiting process. Return whether a process was still waiting."""
        process, wait.process = wait.process, None
        if process is None:
            return False
        self._go_on(process, value)
        return True

    def wait(self, wait: Wait, *, at_most: float | None) -> Process[Any]:
        """Wait, and return the value sent; None after `at_most` seconds."""
        if at_most is not None:
            self.at(self.now + at_most, lambda: self.wake(wait, None))
        return (yield wait)

    def run_until(self, time: float) -> None:
        """Run all events up to this time."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= time:
            self.now, _, process, action = heappop(agenda)
            if process is not None:
                self._go_on(process, None)
            elif action is not None:
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
            heappush(self._agenda, (self.now + wanted, next(self._order), process, None))
