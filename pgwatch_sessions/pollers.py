"""The pollers of all servers: a scheduled job for each, and how a changed configuration reaches them while they run."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import structlog
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_SUBMITTED,
    JobExecutionEvent,
    JobSubmissionEvent,
)
from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.disk_writes import DISK_SECONDS, LAST_WRITES_SECONDS, DiskThread
from pgwatch_sessions.memory.restoring import restored
from pgwatch_sessions.memory.state_file import StateFile
from pgwatch_sessions.metrics.daemon_metrics import Punctuality
from pgwatch_sessions.poller import Poller, Record
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.published_states import PublishedStates
from pgwatch_sessions.recording import Recorder
from pgwatch_sessions.schedule import MONOTONIC, Every, now, spread

_STATE_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What to watch and how. Times are seconds."""

    targets: tuple[Target, ...]
    interval: float
    timeout: float
    policy: Policy
    parse: Callable[[str | None], Statement]
    #: The folder of the recordings; None to record nothing.
    record_dir: Path | None = None
    record_max_bytes: int = 0
    #: The folder of the states that are kept across a restart; None to keep nothing.
    state_dir: Path | None = None
    #: The setting that `parse` follows.
    statements: str = "redacted"
    #: Called with each event, after it was logged and the state that it belongs to was published.
    on_event: Callable[[Event], None] | None = None


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One server that is being watched."""

    target: Target
    poller: Poller
    job: Job
    #: The setting by which its state was gathered from the beginning.
    statements: str
    state_file: StateFile | None
    #: Without the reconnects, which the poller counts.
    punctuality: Punctuality = field(default_factory=Punctuality)


class Pollers:
    """Polls servers on schedule. `apply` decides which servers, and how."""

    def __init__(self, watch: Watch, published: PublishedStates, scheduler: AsyncIOScheduler) -> None:
        """Watch nothing yet. `watch` is applied by `apply`."""
        self._watch = watch
        self._published = published
        self._scheduler = scheduler
        self._watched: dict[str, _Watched] = {}
        self._recordings: _Recordings | None = None
        self._state_disks = _state_disks()
        self._applied_at = time.monotonic()

    def __len__(self) -> int:
        """Return the number of servers."""
        return len(self._watched)

    @property
    def watch(self) -> Watch:
        """What was applied last."""
        return self._watch

    def silence(self) -> float:
        """Return for how many seconds some server has not been polled, counted from the last `apply` at the most."""
        polled_at = min((each.poller.polled_at for each in self._watched.values()), default=time.monotonic())
        return time.monotonic() - max(polled_at, self._applied_at)

    def punctuality(self) -> Mapping[str, Punctuality]:
        """Return how the polls of each server keep the schedule."""
        return {
            name: replace(each.punctuality, reconnects=each.poller.reconnects) for name, each in self._watched.items()
        }

    def count(self, event: JobSubmissionEvent) -> None:
        """Count how late a poll begins, or that it is left out, and the others that were due meanwhile."""
        watched = next((each for each in self._watched.values() if each.job.id == event.job_id), None)
        if watched is None:  # it is not watched any more
            return
        [due], begun = event.scheduled_run_times, now()
        former, missed = watched.punctuality, watched.job.trigger.missed(due, begun)
        if event.code == EVENT_JOB_MAX_INSTANCES:
            missed += 1
        else:
            former = replace(former, lateness=former.lateness.observe([(begun - due).total_seconds()]))
        watched.punctuality = replace(former, skipped=former.skipped + missed)
        if missed:
            self._published.republish()  # there may be no poll for long that would publish it

    async def apply(self, watch: Watch) -> tuple[str, ...]:
        """Watch these servers in this way from now on. One call must end before the next begins.

        Return the names of the servers that were reconnected.

        A server is known by its name. One that stays keeps its connection, history and findings. If its target has
        changed, it is reconnected and keeps the rest. One that is gone loses its series at once; its connection is
        closed.
        """
        before, self._watch, self._applied_at = self._watch, watch, time.monotonic()
        former, former_disks = self._change_recordings(watch), self._state_disks
        if watch.state_dir != before.state_dir:  # the former directory may hang
            self._state_disks = _state_disks()
        targets = {target.name: target for target in watch.targets}
        gone = [self._watched.pop(name) for name in self._watched.keys() - targets.keys()]
        for each in gone:
            each.job.remove()
            each.poller.end()
        self._published.set_servers(targets)
        dropped = [file for each in self._watched.values() if (file := self._adjust(each))]
        if watch.interval != before.interval:
            for each, begin in zip(self._watched.values(), spread(len(self._watched), watch.interval), strict=True):
                each.job.modify(trigger=Every(watch.interval), next_run_time=begin)
        moved = [each for name, each in self._watched.items() if each.target != targets[name]]
        new = [target for name, target in targets.items() if name not in self._watched]
        await asyncio.gather(*(self._restore(target.name) for target in new))
        for target, begin in zip(new, spread(len(new), watch.interval), strict=True):
            self._watched[target.name] = self._start(target, begin)
        await asyncio.gather(
            *(each.poller.close() for each in gone), *(self._move(each, targets[each.target.name]) for each in moved)
        )
        await self._end_files(former, gone, dropped)
        if former_disks is not self._state_disks:
            _end(former_disks)
        return tuple(each.target.name for each in moved)

    async def close(self) -> None:
        """End all polls, close all connections, and complete the recordings."""
        for each in self._watched.values():
            each.poller.end()
        endings: list[Awaitable[object]] = [each.poller.close() for each in self._watched.values()]
        if self._recordings is not None:
            endings.append(asyncio.wait({self._recordings.end()}, timeout=LAST_WRITES_SECONDS))
        await asyncio.gather(*endings)
        _end(self._state_disks)

    async def _restore(self, server: str) -> None:
        """Publish what is known of a server from before."""
        file = self._state_file(server)
        state = await restored(file, structlog.get_logger(server=server)) if file else None
        if state is not None:
            self._published.publish(state)

    def _start(self, target: Target, begin: datetime) -> _Watched:
        watch = self._watch
        state_file = self._state_file(target.name)
        poller = Poller(
            self._published.states()[target.name],
            self._connection(target),
            policy=watch.policy,
            publish=self._published.publish,
            log=structlog.get_logger(server=target.name),
            record=self._record(),
            state_file=state_file,
            on_event=watch.on_event,
        )
        # The job is the awaited poll itself: a slow poll is never overtaken by the next, and delays no other server.
        job = self._scheduler.add_job(
            poller.poll,
            Every(watch.interval),
            next_run_time=begin,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        return _Watched(target=target, poller=poller, job=job, statements=watch.statements, state_file=state_file)

    def _adjust(self, watched: _Watched) -> StateFile | None:
        """Go on as `watch` says. Return the state file that is not used any more."""
        watch, former = self._watch, watched.state_file
        # A state that was gathered with another setting may have texts that must not be in a file now.
        same_texts = watched.statements == watch.statements
        watched.state_file = self._state_file(watched.target.name) if same_texts else None
        watched.poller.adjust(
            policy=watch.policy,
            record=self._record(),
            state_file=watched.state_file,
            timeout=watch.timeout,
            parse=watch.parse,
        )
        return former if former != watched.state_file else None

    async def _move(self, watched: _Watched, target: Target) -> None:
        watched.target = target
        await watched.poller.reconnect(self._connection(target))
        watched.job.modify(next_run_time=now())

    def _connection(self, target: Target) -> HeldConnection:
        return HeldConnection(
            target,
            timeout=self._watch.timeout,
            parse=self._watch.parse,
            jitter=lambda limit: random.uniform(0, limit),
        )

    def _record(self) -> Record | None:
        return self._recordings.record if self._recordings else None

    def _state_file(self, server: str) -> StateFile | None:
        watch = self._watch
        if watch.state_dir is None:
            return None
        disk = self._state_disks[hash(server) % len(self._state_disks)]
        return StateFile(directory=watch.state_dir, server=server, statements=watch.statements, disk=disk)

    def _change_recordings(self, watch: Watch) -> "_Recordings | None":
        """Record where `watch` says. Return the recordings that are not used any more."""
        former = self._recordings
        if former is not None and former.recorder.directory == watch.record_dir:
            former.recorder.max_bytes = watch.record_max_bytes
            return None
        directory, max_bytes = watch.record_dir, watch.record_max_bytes
        self._recordings = _Recordings(Recorder(directory, max_bytes=max_bytes), DiskThread()) if directory else None
        return former

    async def _end_files(
        self, former: "_Recordings | None", gone: Iterable[_Watched], dropped: Iterable[StateFile]
    ) -> None:
        """Complete the recordings that nothing is added to any more, and remove state files that would become old.

        Do not wait long for a slow disk.
        """
        endings = {file.disk.run(file.remove) for file in dropped}
        if former is not None:
            endings.add(former.end())
        elif self._recordings is not None:
            endings |= {self._recordings.end_server(each.target.name) for each in gone}
        if endings:
            await asyncio.wait(endings, timeout=DISK_SECONDS)


class _Recordings(NamedTuple):
    """The recordings in one directory, and the thread that writes them."""

    recorder: Recorder
    disk: DiskThread

    def record(self, server: str, outcome: Snapshot | Failure, at: float) -> "asyncio.Future[None]":
        """Begin to record a poll."""
        return self.disk.run(lambda: self.recorder.record(server, outcome, at=at))

    def end_server(self, server: str) -> "asyncio.Future[None]":
        """Begin to complete the recording of one server."""
        return self.disk.run(lambda: self.recorder.end(server))

    def end(self) -> "asyncio.Future[None]":
        """Begin to complete all of them. Nothing can be recorded after that."""
        ending = self.disk.run(self.recorder.close)
        self.disk.end()
        return ending


def _state_disks() -> tuple[DiskThread, ...]:
    """Return threads that share the state files, so that those of many servers are written at the same time."""
    return tuple(DiskThread() for _ in range(_STATE_THREADS))


def _end(disks: Iterable[DiskThread]) -> None:
    for disk in disks:
        disk.end()


@contextlib.asynccontextmanager
async def polling(
    watch: Watch, published: PublishedStates, fail: Callable[[BaseException], None]
) -> AsyncIterator[Pollers]:
    """Poll while inside. `fail` is called with whatever a poll raises, which is an error in the program."""
    scheduler = AsyncIOScheduler(timezone=MONOTONIC)

    def on_error(event: JobExecutionEvent) -> None:
        if not isinstance(event.exception, asyncio.CancelledError):
            fail(event.exception)

    scheduler.add_listener(on_error, EVENT_JOB_ERROR)
    pollers = Pollers(watch, published, scheduler)
    scheduler.add_listener(pollers.count, EVENT_JOB_SUBMITTED | EVENT_JOB_MAX_INSTANCES)
    scheduler.start()
    await pollers.apply(watch)
    try:
        yield pollers
    finally:
        scheduler.shutdown()
        await asyncio.sleep(0)  # the scheduler shuts down in the next turn of the loop
        await pollers.close()
