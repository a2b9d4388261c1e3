"""SIGTERM and SIGINT, which end the program."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def ended_by_signals(end: "asyncio.Future[None]") -> Iterator[None]:
    """While inside, set the future's result when SIGTERM or SIGINT arrives."""

    def on_signal() -> None:
        if not end.done():
            end.set_result(None)

    loop = asyncio.get_running_loop()
    for number in _ENDING_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in _ENDING_SIGNALS:
            loop.remove_signal_handler(number)
