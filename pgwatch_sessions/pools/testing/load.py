"""Calls a function many times and fails if connections are left out: for pytest, unittest and Django's test runner."""

import asyncio
import inspect
import itertools
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import overload

from pgwatch_sessions.pools.testing.borrows import Borrows
from pgwatch_sessions.pools.testing.report import failure_text, load_text
from pgwatch_sessions.pools.testing.watching import watched_borrows

#: For how many seconds threads and tasks of the application may still return what they have.
_GRACE = 1.0
_PAUSE = 0.01


@overload
def assert_no_leaks(  # type: ignore[overload-overlap]  # a coroutine is an object as well
    call: Callable[[], Coroutine[object, object, object]], *, times: int = ..., concurrency: int = ...
) -> Awaitable[None]: ...


@overload
def assert_no_leaks(call: Callable[[], object], *, times: int = ..., concurrency: int = ...) -> None: ...


def assert_no_leaks(call: Callable[[], object], *, times: int = 100, concurrency: int = 10) -> Awaitable[None] | None:
    """Call a function `times` times, and raise AssertionError if connections are still out afterwards.

    The error names the line that took each. Only connections that are taken during the calls count. `concurrency` calls
    run at a time: in threads, or as tasks of the running event loop if `call` is an async function. In that case the
    result must be awaited. With `concurrency=1` a plain function is called in the caller's thread.

    Calls that raise do not end the run, because errors are where connections are lost. If no connection is left out,
    the run ends with an AssertionError that shows the first exception.
    """
    if times < 1 or concurrency < 1:
        raise ValueError(f"times and concurrency must be at least 1, not {times} and {concurrency}")
    run = _Run(call, times)
    method = getattr(call, "__call__", None)  # noqa: B004  # not whether it can be called, but whether it is async
    if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(method):
        return _tasks(run, concurrency)
    _threads(run, concurrency)
    return None


class _Run:
    """Calls that remain to be made, and what some of them raised."""

    def __init__(self, call: Callable[[], object], times: int) -> None:
        self.call = call
        self.times = times
        self.remaining = itertools.repeat(None, times)
        self._errors = 0
        self._first_error = ""

    def call_all(self) -> None:
        """Call until no call remains, in this thread."""
        for _ in self.remaining:
            try:
                returned = self.call()
            except Exception as error:  # noqa: BLE001  the run goes on
                self._note(error)
            else:
                if inspect.iscoroutine(returned):
                    returned.close()
                    raise TypeError("call returned a coroutine: give an async function, and await the result")

    async def await_all(self) -> None:
        """Call until no call remains, in this task."""
        for _ in self.remaining:
            try:
                await self.call()  # type: ignore[misc]  # it is an async function here
            except Exception as error:  # noqa: BLE001  # the run goes on
                self._note(error)

    def _note(self, error: Exception) -> None:
        # Only its text: the exception itself keeps the frames that it went through, and with them their connections.
        self._errors += 1
        self._first_error = self._first_error or "".join(traceback.format_exception(error))

    def raise_errors(self) -> None:
        """Fail if calls raised."""
        if self._errors:
            raise AssertionError(
                f"{self._errors} of {self.times} calls raised, and left no connection out. The first error:\n"
                f"{self._first_error}"
            )


def _threads(run: _Run, concurrency: int) -> None:
    with _watched(run) as (borrows, begun):
        if concurrency == 1:
            run.call_all()
        else:
            misuse: list[TypeError] = []

            def work() -> None:
                try:
                    run.call_all()
                except TypeError as error:
                    misuse.append(error)

            threads = [threading.Thread(target=work) for _ in range(min(concurrency, run.times))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if misuse:
                raise misuse[0]
        borrows.left_out(lambda borrow: borrow.number > begun, grace=_GRACE)


async def _tasks(run: _Run, concurrency: int) -> None:
    with _watched(run) as (borrows, begun):
        await asyncio.gather(*(run.await_all() for _ in range(min(concurrency, run.times))))
        deadline = time.monotonic() + _GRACE
        while borrows.left_out(lambda borrow: borrow.number > begun) and time.monotonic() < deadline:  # noqa: ASYNC110  # no event
            await asyncio.sleep(_PAUSE)


@contextmanager
def _watched(run: _Run) -> Iterator[tuple[Borrows, int]]:
    """Judge at the end what was taken meanwhile."""
    borrows = watched_borrows()
    begun = borrows.mark()
    yield borrows, begun
    leaks = borrows.left_out(lambda borrow: borrow.number > begun)
    borrows.drop(leaks)
    if borrows.failure:
        raise AssertionError(failure_text(borrows.failure))
    if leaks:
        raise AssertionError(load_text(leaks, calls=run.times))
    run.raise_errors()
