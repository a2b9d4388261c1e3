"""The daemon: polls on schedule, the HTTP server, and an orderly end."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

import structlog
from prometheus_client import CollectorRegistry

from pgwatch_sessions import __version__
from pgwatch_sessions.logs import log_line
from pgwatch_sessions.metrics.collector import registry_of
from pgwatch_sessions.metrics.daemon_metrics import LATENESS, ConfigReload, DaemonFigures, HttpCounts, SourceFigures
from pgwatch_sessions.pollers import Pollers, Watch, polling
from pgwatch_sessions.published_states import PublishedStates
from pgwatch_sessions.shutdown import ended_by_signals
from pgwatch_sessions.web.app import Guard, Health, States, metrics_app, web_app
from pgwatch_sessions.web.crowd import Refused
from pgwatch_sessions.web.host_names import host_guard, is_loopback
from pgwatch_sessions.web.http_server import serving, url
from pgwatch_sessions.wording.event_lines import STOPPED, started_line
from pgwatch_sessions.wording.lines import Line

if TYPE_CHECKING:
    from pgwatch_sessions.web.access.access import Access  # bcrypt is loaded only if there is a web configuration

#: The event loop counts as stuck if no poll has ended for this many intervals.
_MAX_MISSED_POLLS = 3
_BEAT_SECONDS = 1.0


class Running:
    """A running daemon."""

    def __init__(self, published: PublishedStates, pollers: Pollers, end: "asyncio.Future[None]") -> None:
        self.published = published
        #: Done at SIGTERM or SIGINT; fails with the error that a job raised.
        self.end = end
        #: The last attempt to load the configuration, for the metrics.
        self.config_reload = ConfigReload(success=True, at=time.time())
        self._pollers = pollers
        self._ready = False
        self._loop_lag = LATENESS
        #: What was refused to HTTP clients, for the metrics.
        self.http: Callable[[], HttpCounts] = HttpCounts
        #: What the sources of servers have found, for the metrics.
        self.sources: Callable[[], Mapping[str, SourceFigures]] = dict

    async def apply(self, watch: Watch) -> tuple[str, ...]:
        """Go on with a new configuration, as `Pollers.apply` does."""
        reconnected = await self._pollers.apply(watch)
        self.config_reload = ConfigReload(success=True, at=time.time())
        self.published.republish()
        return reconnected

    def keep(self) -> None:
        """Go on with the present configuration, because the new one cannot be used."""
        self.config_reload = replace(self.config_reload, success=False)
        self.published.republish()

    def figures(self) -> DaemonFigures:
        """Return what the metrics of the daemon itself are made of."""
        punctuality = self._pollers.punctuality()
        return DaemonFigures(
            config_reload=self.config_reload,
            loop_lag=self._loop_lag,
            punctuality=punctuality,
            sources=self.sources(),
            http=self.http(),
        )

    async def beat(self, on_beat: Callable[[Health], None]) -> None:
        """Once a second, measure how late the event loop is, and call `on_beat` with the health. Never return."""
        while True:
            due = time.monotonic() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self._loop_lag = self._loop_lag.observe([time.monotonic() - due])
            on_beat(self.health())

    def health(self) -> Health:
        """Judge our own loop only. A server that is down is a metric; a restart would lose connections that work."""
        watch = self._pollers.watch
        silence = self._pollers.silence()
        if silence > _MAX_MISSED_POLLS * (watch.interval + watch.timeout):
            return Health(ok=False, reason=f"no poll has ended for {silence:.0f} s")
        return Health(ok=True, reason="ok")

    def readiness(self) -> Health:
        """Ready after the first poll of every server, and from then on, also if a server is added later."""
        waiting = [state.server for state in self.published.states().values() if not state.polled]
        self._ready = self._ready or not waiting
        if self._ready:
            return Health(ok=True, reason="ok")
        return Health(ok=False, reason=f"no poll yet at: {', '.join(waiting)}")


@contextlib.asynccontextmanager
async def running(
    watch: Watch,
    listener: socket.socket,
    metrics_listener: socket.socket | None = None,
    access: "Access | None" = None,
    *,
    allowed_hosts: Sequence[str] = (),
    on_beat: Callable[[Health], None] = lambda _: None,
) -> AsyncIterator[Running]:
    """While inside, watch and serve HTTP: everything on `listener`, metrics and probes only on `metrics_listener`.

    Without `access`, every client is served over plain HTTP. `allowed_hosts` are further names under which it may ask
    for the page, as shell patterns. The event loop calls `on_beat` once a second.
    """
    log = structlog.get_logger()
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    published = PublishedStates(target.name for target in watch.targets)
    refused = Refused()

    def fail(error: BaseException) -> None:
        if not end.done():
            end.set_exception(error)

    def fail_with(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            fail(error)

    with ended_by_signals(end):
        async with polling(watch, published, fail) as pollers:
            daemon = Running(published, pollers, end)
            daemon.http = lambda: HttpCounts(
                refused=refused.counts, failed_logins=access.failed_logins.total if access else 0
            )
            web = _Web(
                registry=registry_of(lambda: published.states().values(), daemon.figures),
                states=published.states,
                health=daemon.health,
                readiness=daemon.readiness,
            )
            answering = _answering(
                web, access, listener, metrics_listener, allowed_hosts=allowed_hosts, refused=refused
            )
            async with answering as where:
                fields = {"version": __version__, "servers": len(watch.targets), **where}
                log_line(log, "started", _started(watch, where), fields)
                beating = asyncio.create_task(daemon.beat(on_beat))
                beating.add_done_callback(fail_with)
                try:
                    yield daemon
                finally:
                    beating.cancel()
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


@contextlib.asynccontextmanager
async def _answering(
    web: _Web,
    access: "Access | None",
    listener: socket.socket,
    metrics_listener: socket.socket | None,
    *,
    allowed_hosts: Sequence[str],
    refused: Refused,
) -> AsyncIterator[Mapping[str, str]]:
    """Serve HTTP while inside; yield the addresses, for the log."""
    scheme = access.scheme if access else "http"
    tls = access.tls if access else None
    guard = access.guard if access else None
    where = {"address": url(listener, scheme=scheme)}
    async with contextlib.AsyncExitStack() as stack:
        page = web_app(version=__version__, guard=_page_guard(listener, allowed_hosts, access), **web)
        await stack.enter_async_context(serving(page, listener, tls=tls, refused=refused))
        if metrics_listener is not None:
            # Each address has limits of its own, so that a crowd at one does not block the other.
            metrics = metrics_app(guard=guard, **web)
            await stack.enter_async_context(serving(metrics, metrics_listener, tls=tls, refused=refused))
            where["metrics_address"] = url(metrics_listener, scheme=scheme)
        yield where


def _page_guard(listener: socket.socket, allowed_hosts: Sequence[str], access: "Access | None") -> Guard | None:
    """Return what lets requests through to the page. An address for other machines may have any name."""
    login = access.guard if access else None
    if not allowed_hosts and not is_loopback(listener.getsockname()[0]):
        return login
    hosts = host_guard(allowed_hosts, needed=lambda: access is None or not access.asks_for_login())
    return lambda app: hosts(login(app) if login else app)
