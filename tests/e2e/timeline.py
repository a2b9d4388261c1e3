"""What happened, one line each, with the seconds since the start: printed as it happens."""

import sys
import time


class Timeline:
    """Tells what happens."""

    def __init__(self) -> None:
        #: By this machine's clock.
        self.begun = time.time()
        #: Name, begin and end of each phase that is over, and the name and begin of the one at present.
        self.phases: list[tuple[str, float, float]] = []
        self._phase: tuple[str, float] | None = None

    def begin(self, phase: str, text: str) -> None:
        """End the phase at present and begin another."""
        self.end()
        self._phase = (phase, time.time())
        _write(f"\n{phase}: {text}\n")

    def end(self) -> None:
        """End the phase at present."""
        if self._phase:
            self.phases.append((*self._phase, time.time()))
            self._phase = None

    def tell(self, text: str, *, at: float | None = None) -> None:
        """Print what happened now, or at this time."""
        _write(f"{(at or time.time()) - self.begun:7.1f} s  {text}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
