"""Heavyweight locks of the simulated server: fair queues, and blockers as pg_blocking_pids returns them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tests.scenarios.engine import Process, Simulation, Wait

if TYPE_CHECKING:
    from tests.scenarios.backends import Backend


class _Waiting(NamedTuple):
    backend: "Backend"
    shared: bool
    wait: Wait


class Lock:
    """A lock on a row or a relation. A session that conflicts with one ahead in the queue waits, too."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holders: dict[Backend, bool] = {}
        self._queue: list[_Waiting] = []

    @property
    def on_row(self) -> bool:
        """Whether it is a row lock. Relations are named `table`, rows `table:key`."""
        return ":" in self.name

    def take(self, simulation: Simulation, backend: "Backend", *, shared: bool, at_most: float | None) -> Process[bool]:
        """Wait for the lock. Return False if the wait timed out or the session ended."""
        if backend in self._holders:
            return True
        if self._queue or not self._free(shared=shared):
            wait = Wait()
            self._queue.append(_Waiting(backend, shared, wait))
            backend.waits_for = self
            granted = yield from simulation.wait(wait, at_most=at_most)
            backend.waits_for = None
            if not granted:
                self._queue = [waiting for waiting in self._queue if waiting.backend is not backend]
                self._grant(simulation)
                return False
        else:
            self._hold(backend, shared=shared)
        return True

    def leave(self, simulation: Simulation, backend: "Backend") -> None:
        """Release the lock, or leave the queue."""
        if self._holders.pop(backend, None) is not None:
            self._grant(simulation)
        for waiting in self._queue:
            if waiting.backend is backend:
                simulation.wake(waiting.wait, value=False)
                break

    def blockers(self, backend: "Backend") -> Iterator[int]:
        """Yield the pids for which this session waits."""
        place = next((i for i, waiting in enumerate(self._queue) if waiting.backend is backend), None)
        if place is None:
            return
        shared = self._queue[place].shared
        # For a row, all sessions behind the first waiter wait for the tuple lock, which the first waiter holds.
        if place == 0 or not self.on_row:
            yield from (held.pid for held, is_shared in self._holders.items() if not (shared and is_shared))
        yield from (w.backend.pid for w in self._queue[:place] if not (shared and w.shared))

    def event(self, backend: "Backend") -> str:
        """Return the wait_event of a waiting session."""
        if not self.on_row:
            return "relation"
        return "transactionid" if self._queue and self._queue[0].backend is backend else "tuple"

    def _free(self, *, shared: bool) -> bool:
        return not self._holders or (shared and all(self._holders.values()))

    def _hold(self, backend: "Backend", *, shared: bool) -> None:
        self._holders[backend] = shared
        backend.locks.append(self)

    def _grant(self, simulation: Simulation) -> None:
        while self._queue and self._free(shared=self._queue[0].shared):
            waiting = self._queue.pop(0)
            self._hold(waiting.backend, shared=waiting.shared)
            simulation.wake(waiting.wait, value=True)
