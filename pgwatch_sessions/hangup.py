"""SIGHUP, which asks the daemon to read its configuration again. It never ends the daemon.

By default SIGHUP ends a process. So cli.py blocks it at its start: the system keeps one that arrives, until it is
unblocked here. At the end it is ignored. asyncio's own handlers cannot be used: closing the event loop resets them to
the default, shortly before the process ends.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def hangup_event() -> Iterator[asyncio.Event]:
    """While inside, set the event when SIGHUP arrives, also if it arrived while blocked; then ignore SIGHUP."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(asked.set)

    signal.signal(signal.SIGHUP, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        yield asked
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
