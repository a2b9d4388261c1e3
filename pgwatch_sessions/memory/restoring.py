"""Reads the state of a server when the daemon begins to watch it."""

import asyncio

from structlog.typing import FilteringBoundLogger

from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.disk_writes import DISK_SECONDS
from pgwatch_sessions.logs import log_line
from pgwatch_sessions.memory.saved_state import UnusableStateError
from pgwatch_sessions.memory.state_file import StateFile
from pgwatch_sessions.wording.amounts import moment
from pgwatch_sessions.wording.event_lines import state_ignored_line, state_restored_line


async def restored(file: StateFile, log: FilteringBoundLogger) -> ServerState | None:
    """Return the state in the file; None if there is none. A file that cannot be used is logged and left out."""
    try:
        async with asyncio.timeout(DISK_SECONDS):
            content = await file.disk.run(file.read)
        if content is None:
            return None
        # Without a deadline: many large files take long together, and that is not the disk's fault.
        state = await asyncio.to_thread(file.decode, content)
    except UnusableStateError as error:
        _say_ignored(file, str(error), log)
        return None
    except OSError as error:
        _say_ignored(file, f"cannot be read ({error.strerror or 'reading takes too long'})", log)
        return None
    if state.last_poll_at is not None:
        since = moment(state.last_poll_at)
        line = state_restored_line(len(state.findings), since)
        log_line(log, "state_restored", line, {"findings": len(state.findings), "last_poll_at": since})
    return state


def _say_ignored(file: StateFile, reason: str, log: FilteringBoundLogger) -> None:
    log_line(log, "state_ignored", state_ignored_line(str(file.path), reason), {"error": reason})
