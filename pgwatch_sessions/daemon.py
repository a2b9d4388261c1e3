"""The daemon: a scheduled job for each server, the HTTP server, and an orderly end."""

import asyncio
import contextlib
import functools
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import structlog
from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from prometheus_client import CollectorRegistry

from pgwatch_sessions import __version__
from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.logs import log_line
from pgwatch_sessions.metrics.collector import registry_of
from pgwatch_sessions.poller import Poller, Record
from pgwatch_sessions.postgres.connection import HeldConnection, Target
from pgwatch_sessions.published_states import PublishedStates
from pgwatch_sessions.recording import Recorder
from pgwatch_sessions.shutdown import ended_by_signals
from pgwatch_sessions.web.app import Guard, Health, States, metrics_app, web_app
from pgwatch_sessions.web.http_server import serving, url
from pgwatch_sessions.wording.event_lines import STOPPED, started_line
from pgwatch_sessions.wording.lines import Line

if TYPE_CHECKING:
    from pgwatch_sessions.web.access.access import Access  # bcrypt is loaded only if there is a web configuration

#: The event loop counts as stuck if no poll has ended for this many intervals.
_MAX_MISSED_POLLS = 3


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
    #: Called with each event, after it was logged and the state that it belongs to was published.
    on_event: Callable[[Event], None] | None = None


async def run(
    watch: Watch,
    listener: socket.socket,
    metrics_listener: socket.socket | None = None,
    access: "Access | None" = None,
) -> None:
    """Watch until SIGTERM or SIGINT. An error that a job raises is an error in the program: it is raised here."""
    async with running(watch, listener, metrics_listener, access) as daemon:
        await daemon.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running daemon."""

    published: PublishedStates
    #: Done at SIGTERM or SIGINT; fails with the error that a job raised.
    end: "asyncio.Future[None]"


@contextlib.asynccontextmanager
async def running(
    watch: Watch,
    listener: socket.socket,
    metrics_listener: socket.socket | None = None,
    access: "Access | None" = None,
) -> AsyncIterator[Running]:
    """While inside, watch and serve HTTP: everything on `listener`, metrics and probes only on `metrics_listener`.

    Without `access`, every client is served over plain HTTP.
    """
    log = structlog.get_logger()
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with ended_by_signals(end), _recording(watch) as record:
        async with _watching(watch, end, record) as (published, pollers):
            web = _Web(
                registry=registry_of(lambda: published.states().values()),
                states=published.states,
                health=lambda: _health(watch, pollers),
                readiness=lambda: _readiness(published),
                guard=access.guard if access else None,
            )
            async with _answering(web, access, listener, metrics_listener) as where:
                fields = {"version": __version__, "servers": len(pollers), **where}
                log_line(log, "started", _started(watch, where), fields)
                yield Running(published=published, end=end)
    log_line(log, "stopped", STOPPED)


def _started(watch: Watch, where: Mapping[str, str]) -> Line:
    return started_line(
        version=__version__,
        servers=[target.name for target in watch.targets],
        interval=watch.interval,
        page=where["address"],
        metrics=where.get("metrics_address"),
    )


class _Web(TypedDict):
    """The arguments of both applications."""

    registry: CollectorRegistry
    states: States
    health: Callable[[], Health]
    readiness: Callable[[], Health]
    guard: Guard | None


@contextlib.asynccontextmanager
async def _answering(
    web: _Web, access: "Access | None", listener: socket.socket, metrics_listener: socket.socket | None
) -> AsyncIterator[Mapping[str, str]]:
    """Serve HTTP while inside; yield the addresses, for the log."""
    scheme = access.scheme if access else "http"
    tls = access.tls if access else None
    where = {"address": url(listener, scheme=scheme)}
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(web_app(version=__version__, **web), listener, tls=tls))
        if metrics_listener is not None:
            # Each address has limits of its own, so that a crowd at one does not block the other.
            await stack.enter_async_context(serving(metrics_app(**web), metrics_listener, tls=tls))
            where["metrics_address"] = url(metrics_listener, scheme=scheme)
        yield where


@contextlib.contextmanager
def _recording(watch: Watch) -> Iterator[Record | None]:
    """Yield the function that records a poll, or None; complete the files at the end."""
    if watch.record_dir is None:
        yield None
        return
    recorder = Recorder(watch.record_dir, max_bytes=watch.record_max_bytes)
    try:
        yield lambda server, outcome, at: recorder.record(server, outcome, at=at)
    finally:
        with contextlib.suppress(OSError):  # every poll has been written already
            recorder.close()


@contextlib.asynccontextmanager
async def _watching(
    watch: Watch, end: "asyncio.Future[None]", record: Record | None
) -> AsyncIterator[tuple[PublishedStates, Sequence[Poller]]]:
    """Poll every server on schedule while inside, then close all connections. A job's error is set on `end`."""
    published = PublishedStates(target.name for target in watch.targets)
    pollers = [_poller(watch, target, published, record) for target in watch.targets]
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.add_listener(functools.partial(_fail, end), EVENT_JOB_ERROR)
    # The job is the awaited poll itself: a slow poll is never overtaken by the next, and delays no other server.
    jobs = [
        scheduler.add_job(
            poller.poll,
            IntervalTrigger(seconds=watch.interval, timezone=UTC),
            next_run_time=datetime.now(UTC),
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        for poller in pollers
    ]
    scheduler.start()
    timekeeper = asyncio.create_task(keep_time(jobs, timedelta(seconds=watch.interval)))
    try:
        yield published, pollers
    finally:
        timekeeper.cancel()
        scheduler.shutdown()
        await asyncio.sleep(0)  # the scheduler cancels running polls in the next turn of the loop
        await asyncio.gather(*(poller.close() for poller in pollers))


def _poller(watch: Watch, target: Target, published: PublishedStates, record: Record | None) -> Poller:
    connection = HeldConnection(
        target, timeout=watch.timeout, parse=watch.parse, jitter=lambda limit: random.uniform(0, limit)
    )
    state = published.states()[target.name]
    return Poller(
        state,
        connection,
        policy=watch.policy,
        publish=published.publish,
        log=structlog.get_logger(),
        record=record,
        on_event=watch.on_event,
    )


async def keep_time(jobs: Sequence[Job], interval: timedelta) -> None:
    """Bring forward every job whose next run is more than an interval away.

    APScheduler schedules by the time of day. If the clock is set back by an hour, it would not poll for an hour.
    """
    while True:
        await asyncio.sleep(interval.total_seconds())
        now = datetime.now(UTC)
        for job in jobs:
            if job.next_run_time - now > interval:
                job.modify(next_run_time=now)


def _fail(end: "asyncio.Future[None]", event: JobExecutionEvent) -> None:
    if not end.done() and not isinstance(event.exception, asyncio.CancelledError):
        end.set_exception(event.exception)


def _health(watch: Watch, pollers: Sequence[Poller]) -> Health:
    """Judge our own loop only. A server that is down is a metric; a restart would lose the connections that work."""
    patience = _MAX_MISSED_POLLS * (watch.interval + watch.timeout)
    silence = time.monotonic() - min(poller.polled_at for poller in pollers)
    if silence > patience:
        return Health(ok=False, reason=f"no poll has ended for {silence:.0f} s")
    return Health(ok=True, reason="ok")


def _readiness(published: PublishedStates) -> Health:
    waiting = [state.server for state in published.states().values() if not state.polled]
    if waiting:
        return Health(ok=False, reason=f"no poll yet at: {', '.join(waiting)}")
    return Health(ok=True, reason="ok")
