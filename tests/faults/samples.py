"""What the daemon says and holds, sampled twice a second."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pgwatch_sessions.core.model import FailureReason
from tests.faults.scene import APPLICATION, Scene
from tests.support.daemons import Scrape

EVERY_SECONDS = 0.5
#: Series of sessions, one of each kind: of clients, of the server's limits, of its counters.
_OF_SESSIONS = ("connections", "used_slots", "established_total", "hidden_sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One scrape, and how many sessions of ours the server had at that moment."""

    #: When it was asked for, by the clock of this machine.
    at: float
    #: None if the daemon did not answer.
    scrape: Scrape | None
    ours: int

    @property
    def up(self) -> float | None:
        """Whether the last poll succeeded; None before the first one."""
        return self.scrape.value("up") if self.scrape else None

    @property
    def failures(self) -> Mapping[str, float]:
        """How many polls have failed, by reason."""
        scrape = self.scrape
        return (
            {reason: scrape.value("poll_failures_total", reason=reason) or 0 for reason in FailureReason}
            if scrape
            else {}
        )

    @property
    def series(self) -> list[str]:
        """Which series of sessions there are."""
        return [name for name in _OF_SESSIONS if self.scrape and self.scrape.all(name)]

    def of_leak(self, name: str) -> float:
        """Return the sum of a metric of the leaking application."""
        return sum(self.scrape.all(name, application=APPLICATION)) if self.scrape else 0


@contextlib.contextmanager
def sampling(scene: Scene) -> Iterator[list[Sample]]:
    """Yield a list to which samples are added until the block ends."""
    samples: list[Sample] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.is_set():
            at, ours = time.time(), len(scene.ours())
            samples.append(Sample(at=at, scrape=_scrape(scene), ours=ours))
            ended.wait(max(0, at + EVERY_SECONDS - time.time()))

    thread = threading.Thread(target=sample, name="sampling")
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _scrape(scene: Scene) -> Scrape | None:
    try:
        return scene.daemon.scrape()
    except (OSError, http.client.HTTPException):
        return None
