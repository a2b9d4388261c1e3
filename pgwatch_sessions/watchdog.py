"""Ends a process that is stuck, because a restart repairs what nothing inside of it can."""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Self

#: Between two looks at whether the daemon works.
TICK_SECONDS = 1.0
#: Looks in a row at which it does not work, until the process ends.
MAX_TICKS = 60
_LAST_WORDS_SECONDS = 2.0


class Watchdog:
    """A thread that ends the process after `MAX_TICKS` in a row without a report that all is well.

    It counts its own ticks instead of reading a clock. If the whole process was stopped for an hour, by SIGSTOP or
    because the machine slept, the clock has gone on, but the thread has ticked no more often than the event loop.
    """

    def __init__(self, last_words: Callable[[str], None], exit_code: int) -> None:
        """Before the process ends with `exit_code`, `last_words` gets the reason."""
        self._last_words = last_words
        self._exit_code = exit_code
        self._ticks = 0
        self._problem: str | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def report(self, problem: str | None) -> None:
        """Say from the event loop what is wrong; None if all is well."""
        self._problem = problem
        if problem is None:
            self._ticks = 0

    def _watch(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            self._ticks += 1
            if self._ticks >= MAX_TICKS:
                # In a thread of its own, because whatever takes the log may be what is stuck.
                saying = threading.Thread(target=self._say, daemon=True)
                saying.start()
                saying.join(_LAST_WORDS_SECONDS)
                os._exit(self._exit_code)

    def _say(self) -> None:
        sys.stderr.write("\n".join(["Where each thread is, the innermost call first:", *_stacks(), ""]))
        self._last_words(self._problem or f"the event loop has not run for {MAX_TICKS * TICK_SECONDS:g} s")


def _stacks() -> Iterator[str]:
    """Yield files, lines and functions of every thread, without values or anything that has to be read from a disk.

    faulthandler is not used, because nothing else can run while it writes, and the log may not take what it writes.
    """
    for stack in sys._current_frames().values():  # noqa: SLF001  # public: the documentation has it
        yield ""
        for frame, line in traceback.walk_stack(stack):
            yield f'  File "{frame.f_code.co_filename}", line {line} in {frame.f_code.co_name}'
