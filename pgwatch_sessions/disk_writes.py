"""Writes to a disk that may be slow, full or read-only: nothing waits for them for long."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.logs import log_line
from pgwatch_sessions.wording.lines import Line

#: If a write takes longer, the program continues without waiting for it.
DISK_SECONDS = 2.0


class Outcomes(NamedTuple):
    """How it is logged that writes fail, and that they succeed again."""

    failed: str
    failed_line: Callable[[str], Line]
    resumed: str
    resumed_line: Line


class DiskWrites:
    """Writes of one kind, one after the other, each in a thread."""

    def __init__(self, outcomes: Outcomes, log: FilteringBoundLogger) -> None:
        self._outcomes = outcomes
        self._log = log
        self._write: asyncio.Task[None] | None = None
        self._failed = False

    async def run(self, write: Callable[[], None]) -> bool:
        """Write, and return whether that succeeded. A failing or slow disk is logged once."""
        try:
            if self._write is not None and not self._write.done():
                raise TimeoutError("the previous write has not ended")
            self._write = asyncio.create_task(asyncio.to_thread(write))
            self._write.add_done_callback(_retrieve_error)
            async with asyncio.timeout(DISK_SECONDS):
                await asyncio.shield(self._write)  # a thread cannot be cancelled
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
        """Wait a moment for a write that has not ended."""
        if self._write is not None:
            await asyncio.wait({self._write}, timeout=DISK_SECONDS)


def _retrieve_error(task: "asyncio.Task[None]") -> None:
    """Retrieve the error of a write that nothing waits for any more, or asyncio would log it as never retrieved."""
    if not task.cancelled():
        task.exception()
