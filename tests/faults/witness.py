"""A fault from its beginning to the recovery, and what the daemon said and did."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.faults.fault import SLACK, Fault, Seen
from tests.faults.samples import Sample, sampling
from tests.faults.scene import APPLICATION, INTERVAL, LEAKED, Scene
from tests.support.inside import Held
from tests.support.waiting import until

#: A fault lasts for so many polls at least, so that what happens at every poll shows.
_POLLS = 4
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What was seen of one fault. Times are seconds since the epoch."""

    fault: Fault
    samples: Sequence[Sample]
    #: When somebody began to make the fault, when it was there, when somebody began to mend it, and when it was gone.
    making_at: float
    there_at: float
    ending_at: float
    gone_at: float
    #: Names and times of the events that were logged since then, and the reasons of those that have one.
    events: Sequence[tuple[str, float, str]]
    #: What the daemon holds that it did not hold before; empty for nothing.
    left: str

    @property
    def said(self) -> str:
        """What was said of the fault: reasons of failed polls, then other events that were expected."""
        reasons = [reason for name, _, reason in self.events if name == "server_down"]
        others = [name for name, _, _ in self.events if name in self.fault.logged]
        shown = [name for name in self.fault.shown if name == "exhausted"]
        return ", ".join(dict.fromkeys([*reasons, *others, *shown])) or "up"

    @property
    def said_after(self) -> float | None:
        """Seconds from the beginning of the fault until the first failed poll was logged."""
        return next((at - self.making_at for name, at, _ in self.events if name == "server_down"), None)

    @property
    def recovered_after(self) -> float | None:
        """Seconds until the server was seen again: from the end of the fault, or from the failure if it came sooner."""
        failed = next((at for name, at, _ in self.events if name == "server_down"), None)
        ups = [at for name, at, _ in self.events if name == "server_up"]
        if not ups or (failed is None and not self.fault.before_start):
            return None
        return ups[-1] - (self.gone_at if ups[-1] > self.ending_at else failed or self.there_at)

    @property
    def most_sessions(self) -> int:
        """The most sessions of ours at one moment."""
        return max(sample.ours for sample in self.samples)


def witness(fault: Fault, scene: Scene) -> Witness:
    """Let the fault happen, and end."""
    with scene.leak():
        if not fault.before_start:
            _start(scene)
        before = None if fault.before_start else _lasting(scene)
        begun = len(_events(scene)) if before else 0
        with sampling(scene) as samples:
            until(lambda: len(samples) >= 2)
            making_at = time.time()
            with fault.make(scene):
                if fault.before_start:
                    making_at = time.time()
                    scene.daemon.start()
                there_at = time.time()
                _outlast(fault, samples, there_at)
                ending_at = time.time()
            gone_at = time.time()
            _recover(fault, samples, gone_at)
        left = _left(scene, before) if before else ""
        events = [event for event in _events(scene)[begun:] if event[1] >= making_at]
    return Witness(
        fault=fault,
        samples=samples,
        making_at=making_at,
        there_at=there_at,
        ending_at=ending_at,
        gone_at=gone_at,
        events=events,
        left=left,
    )


def _start(scene: Scene) -> None:
    """Start the daemon, and wait until it has found the leak and has settled."""
    scene.daemon.start()
    until(
        lambda: sum(scene.daemon.scrape().all("leaked_sessions", application=APPLICATION)) == LEAKED, within=_PATIENCE
    )
    polls = scene.daemon.scrape().polls()
    until(lambda: scene.daemon.scrape().polls() >= polls + 2)


def _lasting(scene: Scene) -> Held:
    """Return what the daemon holds all the time, and not only for a moment."""
    held = scene.held()
    for _ in range(4):
        time.sleep(INTERVAL / 5)
        held = held.common(scene.held())
    return held


def _outlast(fault: Fault, samples: Sequence[Sample], there_at: float) -> None:
    """Wait until so much of the fault was seen that it can be judged."""
    if fault.seen is Seen.UNANSWERED:
        with contextlib.suppress(AssertionError):  # the samples will tell
            until(lambda: sum(sample.scrape is None for sample in samples) >= _POLLS, within=_PATIENCE)
        return
    judged_from = fault.due(there_at)
    with contextlib.suppress(AssertionError):
        until(lambda: _polls_since(there_at, samples) >= _POLLS, within=_PATIENCE)
    until(lambda: samples[-1].at > judged_from + 1, within=_PATIENCE)


def _recover(fault: Fault, samples: Sequence[Sample], gone_at: float) -> None:
    """Wait until the daemon has recovered, or has had its time."""
    with contextlib.suppress(AssertionError):
        until(lambda: samples[-1].at > gone_at and _polls_since(gone_at, samples) >= _POLLS, within=10)
        until(lambda: _has_settled(fault, samples[-1]), within=10)
    until(lambda: samples[-1].at > gone_at + 2 * INTERVAL + SLACK)


def _has_settled(fault: Fault, sample: Sample) -> bool:
    return sample.up == 1 and (fault.sessions_survive or sample.of_leak("leaks_closed_total") == 1)


def _polls_since(moment: float, samples: Sequence[Sample]) -> float:
    """Count polls that ended after the moment, by the samples; a daemon that was restarted counts from zero."""
    counts = [sample.scrape.polls() for sample in samples if sample.scrape and sample.at > moment]
    return counts[-1] - counts[0] if counts and counts[-1] >= counts[0] else 0


def _left(scene: Scene, before: Held) -> str:
    """Return what is left when there was time for everything to end."""
    with contextlib.suppress(AssertionError):
        until(lambda: not scene.held().beyond(before), within=5)
    return scene.held().beyond(before)


def _events(scene: Scene) -> list[tuple[str, float, str]]:
    return [
        (event["event"], datetime.fromisoformat(event["timestamp"]).timestamp(), event.get("reason", ""))
        for event in scene.daemon.all_events()
    ]
