"""Calls on a disk that may be slow, full, read-only or gone: nothing waits for them for long."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.logs import log_line
from pgwatch_sessions.wording.lines import Line

Result = TypeVar("Result")

#: If a call takes longer, the program continues without waiting for it.
DISK_SECONDS = 2.0
#: How long the end of the program waits for the last writes. With everything else, ending takes less than 2 s.
LAST_WRITES_SECONDS = 0.7


class DiskThread:
    """A thread for calls on one directory, one after the other. It never delays the end of the process.

    A call on a network disk whose server is gone does not return. asyncio.to_thread would delay the end: Python waits
    for every thread of an executor. And such calls would take the threads that resolve host names.
    """

    def __init__(self) -> None:
        """Start no thread before the first call."""
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = False

    def run(self, call: Callable[[], Result]) -> "asyncio.Future[Result]":
        """Make the call after all those before it. The future has what it returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        future.add_done_callback(_retrieve_error)

        def answer(settle: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: None if future.done() else settle())

        def make_call() -> None:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # it is raised where the future is awaited
                reason = error
                answer(lambda: future.set_exception(reason))
            else:
                answer(lambda: future.set_result(result))

        self._calls.put(make_call)
        if not self._started:
            self._started = True
            threading.Thread(target=self._make_calls, name="disk", daemon=True).start()
        return future

    def end(self) -> None:
        """End the thread after the calls that were asked for."""
        self._calls.put(None)

    def _make_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class Outcomes(NamedTuple):
    """How it is logged that writes fail, and that they succeed again."""

    failed: str
    failed_line: Callable[[str], Line]
    resumed: str
    resumed_line: Line


class DiskWrites:
    """Writes of one kind, one after the other."""

    def __init__(self, outcomes: Outcomes, log: FilteringBoundLogger) -> None:
        self._outcomes = outcomes
        self._log = log
        self._write: asyncio.Future[None] | None = None
        self._failed = False

    async def run(self, write: Callable[[], "asyncio.Future[None]"]) -> bool:
        """Begin a write, and return whether it succeeded. A failing or slow disk is logged once."""
        try:
            if self._write is not None and not self._write.done():
                raise TimeoutError("the previous write has not ended")
            self._write = write()
            async with asyncio.timeout(DISK_SECONDS):
                await asyncio.shield(self._write)  # a call on a disk cannot be cancelled
        except OSError as error:
            if not self._failed:
                reason = str(error) or "writing takes too long"
                log_line(self._log, self._outcomes.failed, self._outcomes.failed_line(reason), {"error": reason})
            self._failed = True
        else:
            if self._failed:
                log_line(self._log, self._outcomes.resumed, self._outcomes.resumed_line)
            self._failed = False
        return not self._failed

    async def ended(self) -> None:
        """Wait until the last write has ended."""
        if self._write is not None:
            await asyncio.wait({self._write})


def _retrieve_error(call: "asyncio.Future[Result]") -> None:
    """Retrieve the error of a call that nothing waits for any more, or asyncio would log it as never retrieved."""
    if not call.cancelled():
        call.exception()
