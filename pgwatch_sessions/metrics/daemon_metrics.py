"""The metrics of the daemon itself: its configuration, its event loop, and how it keeps its schedule."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pgwatch_sessions.core.summaries.histogram import Histogram, empty_histogram
from pgwatch_sessions.metrics.samples import Sample

#: Of lateness, with a loop that works and with one that does not.
LATENESS = empty_histogram(0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReload:
    """The last attempt to load the configuration."""

    success: bool
    #: When it was last loaded successfully, by the daemon's clock.
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Punctuality:
    """How the polls of one server keep the schedule."""

    #: Of the polls that began, in seconds.
    lateness: Histogram = LATENESS
    #: Polls that were due and did not begin.
    skipped: int = 0
    #: How often the connection to the server was opened again.
    reconnects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCounts:
    """What was refused to HTTP clients since the start."""

    #: Connections, by reason.
    refused: Mapping[str, int] = field(default_factory=dict)
    failed_logins: int = 0


class SourceFigures(NamedTuple):
    """What a source of servers has found."""

    servers: int
    #: How often it could not be read.
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFigures:
    """What the daemon knows about itself."""

    config_reload: ConfigReload
    loop_lag: Histogram
    #: By server.
    punctuality: Mapping[str, Punctuality]
    #: By source, as the configuration has it: files or a URL.
    sources: Mapping[str, SourceFigures]
    http: HttpCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonMetricSpec:
    """One metric, with all its labels."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...] = ()
    help: str
    samples: Callable[[DaemonFigures], Iterable[Sample]]


def _of_daemon(value: Callable[[DaemonFigures], Any]) -> Callable[[DaemonFigures], Iterable[Sample]]:
    return lambda figures: [((), value(figures))]


def _of_sources(value: Callable[[SourceFigures], int]) -> Callable[[DaemonFigures], Iterable[Sample]]:
    return lambda figures: (((source,), value(each)) for source, each in figures.sources.items())


def _of_servers(value: Callable[[Punctuality], Any]) -> Callable[[DaemonFigures], Iterable[Sample]]:
    return lambda figures: (((server,), value(each)) for server, each in figures.punctuality.items())


DAEMON_METRICS: tuple[DaemonMetricSpec, ...] = (
    DaemonMetricSpec(
        name="config_reload_success",
        kind="gauge",
        help="1 if the configuration was loaded, 0 if the last attempt failed and the former one stays in use.",
        samples=_of_daemon(lambda figures: float(figures.config_reload.success)),
    ),
    DaemonMetricSpec(
        name="config_reload_timestamp_seconds",
        kind="gauge",
        help="Time at which the configuration was last loaded successfully, by the daemon's clock.",
        samples=_of_daemon(lambda figures: figures.config_reload.at),
    ),
    DaemonMetricSpec(
        name="loop_lag_seconds",
        kind="histogram",
        help="How late the daemon's event loop ran something that was due. Observed once a second.",
        samples=_of_daemon(lambda figures: figures.loop_lag),
    ),
    DaemonMetricSpec(
        name="poll_lateness_seconds",
        kind="histogram",
        labels=("server",),
        help="How long after its time each poll began.",
        samples=_of_servers(lambda server: server.lateness),
    ),
    DaemonMetricSpec(
        name="polls_skipped_total",
        kind="counter",
        labels=("server",),
        help="Polls that were left out, because the one before had not ended or the daemon was too late.",
        samples=_of_servers(lambda server: server.skipped),
    ),
    DaemonMetricSpec(
        name="reconnects_total",
        kind="counter",
        labels=("server",),
        help="How often the connection to the server was opened again after the first time.",
        samples=_of_servers(lambda server: server.reconnects),
    ),
    DaemonMetricSpec(
        name="discovered_servers",
        kind="gauge",
        labels=("source",),
        help="Servers that a source of `servers_from` has found.",
        samples=_of_sources(lambda source: source.servers),
    ),
    DaemonMetricSpec(
        name="discovery_failures_total",
        kind="counter",
        labels=("source",),
        help="How often a source of `servers_from` could not be read. The servers found before stay.",
        samples=_of_sources(lambda source: source.failures),
    ),
    DaemonMetricSpec(
        name="http_connections_refused_total",
        kind="counter",
        labels=("reason",),
        help="Connections of HTTP clients that were closed or answered 503: too many, or no file descriptors left.",
        samples=lambda figures: (((reason,), count) for reason, count in figures.http.refused.items()),
    ),
    DaemonMetricSpec(
        name="http_logins_failed_total",
        kind="counter",
        help="HTTP requests with a wrong user or password.",
        samples=_of_daemon(lambda figures: figures.http.failed_logins),
    ),
)
