"""Print each event of the run as it happens, with the seconds since the start."""

import sys
import time


class Timeline:
    """Prints events, and remembers the phases of the run."""

    def __init__(self) -> None:
        #: Time of the start, by this machine's clock.
        self.started_at = time.time()
        #: Name, begin and end of each finished phase.
        self.phases: list[tuple[str, float, float]] = []
        #: Name and begin of the current phase.
        self._phase: tuple[str, float] | None = None

    def begin(self, phase: str, text: str) -> None:
        """End the current phase and begin another."""
        self.end()
        self._phase = (phase, time.time())
        _write(f"\n{phase}: {text}\n")

    def end(self) -> None:
        """End the current phase."""
        if self._phase:
            self.phases.append((*self._phase, time.time()))
            self._phase = None

    def report(self, text: str, *, at: float | None = None) -> None:
        """Print an event that happened now, or at the given time."""
        _write(f"{(at or time.time()) - self.started_at:7.1f} s  {text}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
