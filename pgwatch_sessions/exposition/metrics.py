"""The metrics: one table of names, and families derived at scrape from the published state.

Nothing is pushed into long-lived gauges, so a series that has no cause any more is gone with the next look.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pgwatch_sessions import __version__
from pgwatch_sessions.core.clients import ClientSummary
from pgwatch_sessions.core.histogram import Histogram
from pgwatch_sessions.core.model import DatabaseCounters, Failure, Reason, Scope
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.view import View

PREFIX = "pgwatch_sessions_"
CLIENT_LABELS = ("database", "user", "application")

Kind = Literal["gauge", "counter", "histogram", "info"]
#: Label values after the server's, and the value: a number, a Histogram, or the labels of an info.
Sample = tuple[tuple[str, ...], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric: what users see of it, and where it comes from. Every one has the label `server` first."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    samples: Callable[[ServerState], Iterable[Sample]]


def _of_clients(
    value: Callable[[ClientSummary], float | None],
) -> Callable[[ServerState], Iterator[Sample]]:
    """Sample one value a client; a client with hidden sessions has none, since it would be half the truth."""

    def samples(state: ServerState) -> Iterator[Sample]:
        for summary in state.view.clients if state.view else ():
            number = None if summary.hidden else value(summary)
            if number is not None:
                yield summary.client, number

    return samples


def _of_states(
    values: Callable[[ClientSummary], Mapping[Any, float]],
) -> Callable[[ServerState], Iterator[Sample]]:
    def samples(state: ServerState) -> Iterator[Sample]:
        for summary in state.view.clients if state.view else ():
            if not summary.hidden:
                yield from (((*summary.client, name), value) for name, value in values(summary).items())

    return samples


def _of_databases(value: Callable[[DatabaseCounters], float]) -> Callable[[ServerState], Iterator[Sample]]:
    def samples(state: ServerState) -> Iterator[Sample]:
        for counters in state.view.snapshot.databases if state.view else ():
            yield (counters.database,), value(counters)

    return samples


def _of_view(value: Callable[[View], float]) -> Callable[[ServerState], Iterator[Sample]]:
    def samples(state: ServerState) -> Iterator[Sample]:
        if state.view:
            yield (), value(state.view)

    return samples


def _exhausted(state: ServerState) -> Iterator[Sample]:
    if state.view:
        yield (), float(state.view.exhausted)
    elif _refused_for_lack_of_slots(state.failure):
        yield (), 1.0


def _refused_for_lack_of_slots(failure: Failure | None) -> bool:
    return failure is not None and failure.reason is Reason.EXHAUSTED and failure.exhausted_scope is Scope.SERVER


def _slots(number: Literal["capacity", "used"]) -> Callable[[ServerState], Iterator[Sample]]:
    def samples(state: ServerState) -> Iterator[Sample]:
        for slots in state.view.slots if state.view else ():
            yield (slots.scope, slots.name), float(getattr(slots, number))

    return samples


def _server_info(state: ServerState) -> Iterator[Sample]:
    if state.view:
        server = state.view.snapshot.server
        recovery = {True: "true", False: "false", None: "unknown"}[server.in_recovery]
        yield (), {"version": version_text(server.version_num), "in_recovery": recovery}


def version_text(version_num: int | None) -> str:
    """Write a `server_version_num` (160014) as people do (16.14)."""
    return "unknown" if version_num is None else f"{version_num // 10000}.{version_num % 10000}"


def _up(state: ServerState) -> Iterator[Sample]:
    if state.looked:
        yield (), float(state.failure is None)


def _last_success(state: ServerState) -> Iterator[Sample]:
    if state.last_success is not None:
        yield (), state.last_success


METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="connections",
        kind="gauge",
        labels=(*CLIENT_LABELS, "state"),
        help="Sessions now, by client and state. Our own session is left out.",
        samples=_of_states(lambda client: client.states),
    ),
    MetricSpec(
        name="state_age_max_seconds",
        kind="gauge",
        labels=(*CLIENT_LABELS, "state"),
        help="Longest time any session of the client has been in that state.",
        samples=_of_states(lambda client: client.state_age_max),
    ),
    MetricSpec(
        name="idle_in_transaction_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Longest time any session of the client has been idle in transaction, aborted or not.",
        samples=_of_clients(lambda client: client.idle_in_transaction_age_max),
    ),
    MetricSpec(
        name="transaction_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Age of the client's oldest open transaction. An aborted transaction has none.",
        samples=_of_clients(lambda client: client.transaction_age_max),
    ),
    MetricSpec(
        name="query_age_max_seconds",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Age of the client's oldest running query.",
        samples=_of_clients(lambda client: client.query_age_max),
    ),
    MetricSpec(
        name="lock_waiting",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="Sessions of the client that wait for a heavyweight lock.",
        samples=_of_clients(lambda client: client.lock_waiting),
    ),
    MetricSpec(
        name="xmin_age_max_transactions",
        kind="gauge",
        labels=CLIENT_LABELS,
        help="How many transactions back the client's oldest snapshot holds vacuum.",
        samples=_of_clients(lambda client: client.xmin_age_max),
    ),
    MetricSpec(
        name="capacity_slots",
        kind="gauge",
        labels=("scope", "name"),
        help="Connections allowed: to ordinary roles together, to a role, to a database. Unlimited ones are absent.",
        samples=_slots("capacity"),
    ),
    MetricSpec(
        name="used_slots",
        kind="gauge",
        labels=("scope", "name"),
        help="Connections that count against that limit, our own included.",
        samples=_slots("used"),
    ),
    MetricSpec(
        name="exhausted",
        kind="gauge",
        labels=(),
        help="1 while all slots of ordinary roles are in use, or connecting is refused for lack of slots.",
        samples=_exhausted,
    ),
    MetricSpec(
        name="transaction_hold_seconds",
        kind="histogram",
        labels=("database",),
        help="How long transactions sat idle, observed when a hold that a look saw has ended.",
        samples=lambda state: (((database,), histogram) for database, histogram in state.holds.items()),
    ),
    MetricSpec(
        name="established_total",
        kind="counter",
        labels=("database",),
        help="Sessions established (pg_stat_database.sessions).",
        samples=_of_databases(lambda counters: counters.established),
    ),
    MetricSpec(
        name="abandoned_total",
        kind="counter",
        labels=("database",),
        help="Sessions ended because the client was gone (pg_stat_database.sessions_abandoned).",
        samples=_of_databases(lambda counters: counters.abandoned),
    ),
    MetricSpec(
        name="fatal_total",
        kind="counter",
        labels=("database",),
        help="Sessions ended by a fatal error, time-outs of idle transactions among them (sessions_fatal).",
        samples=_of_databases(lambda counters: counters.fatal),
    ),
    MetricSpec(
        name="killed_total",
        kind="counter",
        labels=("database",),
        help="Sessions terminated by an operator (pg_stat_database.sessions_killed).",
        samples=_of_databases(lambda counters: counters.killed),
    ),
    MetricSpec(
        name="session_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time spent by sessions (pg_stat_database.session_time).",
        samples=_of_databases(lambda counters: counters.session_seconds),
    ),
    MetricSpec(
        name="active_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time sessions spent executing statements (pg_stat_database.active_time).",
        samples=_of_databases(lambda counters: counters.active_seconds),
    ),
    MetricSpec(
        name="idle_in_transaction_seconds_total",
        kind="counter",
        labels=("database",),
        help="Time sessions spent idle in transaction (pg_stat_database.idle_in_transaction_time).",
        samples=_of_databases(lambda counters: counters.idle_in_transaction_seconds),
    ),
    MetricSpec(
        name="up",
        kind="gauge",
        labels=(),
        help="1 when the last look at the server succeeded.",
        samples=_up,
    ),
    MetricSpec(
        name="last_look_timestamp_seconds",
        kind="gauge",
        labels=(),
        help="When a look last succeeded, by the clock of this process.",
        samples=_last_success,
    ),
    MetricSpec(
        name="look_duration_seconds",
        kind="histogram",
        labels=(),
        help="Duration of looks, failed ones included.",
        samples=lambda state: [((), state.looks)],
    ),
    MetricSpec(
        name="look_failures_total",
        kind="counter",
        labels=("reason",),
        help="Looks that failed.",
        samples=lambda state: (((reason,), count) for reason, count in state.failures.items()),
    ),
    MetricSpec(
        name="hidden_sessions",
        kind="gauge",
        labels=(),
        help="Sessions whose state the monitoring role may not see. GRANT pg_monitor to it.",
        samples=_of_view(lambda view: view.hidden),
    ),
    MetricSpec(
        name="folded_clients",
        kind="gauge",
        labels=(),
        help="Clients shown together as `other`.",
        samples=_of_view(lambda view: view.folded),
    ),
    MetricSpec(
        name="server_info",
        kind="info",
        labels=(),
        help="Version of the server and whether it is in recovery.",
        samples=_server_info,
    ),
)


class StateCollector(Collector):
    """Derives every family from the states published at the moment of the scrape."""

    def __init__(self, published: Callable[[], Iterable[ServerState]]) -> None:
        """Collect from what `published` returns: the state of every server."""
        self._published = published

    def describe(self) -> Iterator[Metric]:
        """Name the families without reading the state, for `?name[]=` and the check for duplicates."""
        yield from (_family(spec, ()) for spec in METRICS)
        yield _build_info()

    def collect(self) -> Iterator[Metric]:
        """Derive the families."""
        states = tuple(self._published())
        yield from (_family(spec, states) for spec in METRICS)
        yield _build_info()


def registry_of(published: Callable[[], Iterable[ServerState]]) -> CollectorRegistry:
    """Return a registry of our metrics and those of this process."""
    registry = CollectorRegistry()
    registry.register(StateCollector(published))
    ProcessCollector(registry=registry)
    return registry


def _build_info() -> Metric:
    family = InfoMetricFamily(f"{PREFIX}build", "The version of pgwatch-sessions.")
    family.add_metric((), {"version": __version__})
    return family


def _family(spec: MetricSpec, states: Iterable[ServerState]) -> Metric:
    family, add = _FAMILIES[spec.kind](f"{PREFIX}{spec.name}", spec.help, ("server", *spec.labels))
    for state in states:
        for labels, value in spec.samples(state):
            add((state.server, *labels), value)
    return family


_Add = Callable[[tuple[str, ...], Any], None]


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> tuple[Metric, _Add]:
    family = GaugeMetricFamily(name, text, labels=labels)
    return family, family.add_metric


def _counter(name: str, text: str, labels: tuple[str, ...]) -> tuple[Metric, _Add]:
    family = CounterMetricFamily(name.removesuffix("_total"), text, labels=labels)
    return family, family.add_metric


def _info(name: str, text: str, labels: tuple[str, ...]) -> tuple[Metric, _Add]:
    family = InfoMetricFamily(name.removesuffix("_info"), text, labels=labels)
    return family, family.add_metric


def _histogram(name: str, text: str, labels: tuple[str, ...]) -> tuple[Metric, _Add]:
    family = HistogramMetricFamily(name, text, labels=labels)

    def add(values: tuple[str, ...], histogram: Histogram) -> None:
        bounds = (*(str(float(bound)) for bound in histogram.bounds), "+Inf")
        family.add_metric(values, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum)

    return family, add


_FAMILIES: Mapping[Kind, Callable[[str, str, tuple[str, ...]], tuple[Metric, _Add]]] = {
    "gauge": _gauge,
    "counter": _counter,
    "histogram": _histogram,
    "info": _info,
}
