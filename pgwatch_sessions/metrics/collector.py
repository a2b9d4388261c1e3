"""Makes the metric families at each scrape, from the published states.

No gauge is kept between scrapes, so the series of a client that is gone disappear with the next poll.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from pgwatch_sessions import __version__
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.histogram import Histogram
from pgwatch_sessions.metrics.daemon_metrics import DAEMON_METRICS, DaemonFigures, DaemonMetricSpec
from pgwatch_sessions.metrics.samples import Sample
from pgwatch_sessions.metrics.table import METRICS, PREFIX, MetricKind, MetricSpec


class StateCollector(Collector):
    """Makes every family from the states that are published at the time of the scrape."""

    def __init__(
        self,
        published: Callable[[], Iterable[ServerState]],
        figures: Callable[[], DaemonFigures] | None = None,
    ) -> None:
        """Collect from the states that `published` returns, one for each server, and from the daemon's `figures`."""
        self._published = published
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples. The registry needs them to select by `name[]` and to find duplicates."""
        yield from (_server_family(spec, ()) for spec in METRICS)
        if self._figures is not None:
            yield from (_family(spec, spec.labels, ()) for spec in DAEMON_METRICS)
        yield _build_info()

    def collect(self) -> Iterator[Metric]:
        """Yield the families with their samples."""
        states = tuple(self._published())
        yield from (_server_family(spec, states) for spec in METRICS)
        if self._figures is not None:
            figures = self._figures()
            yield from (_family(spec, spec.labels, spec.samples(figures)) for spec in DAEMON_METRICS)
        yield _build_info()


def registry_of(
    published: Callable[[], Iterable[ServerState]], figures: Callable[[], DaemonFigures] | None = None
) -> CollectorRegistry:
    """Return a registry of our metrics and of those of this process."""
    registry = CollectorRegistry()
    registry.register(StateCollector(published, figures))
    ProcessCollector(registry=registry)
    return registry


def _build_info() -> Metric:
    family = InfoMetricFamily(f"{PREFIX}build", "The version of pgwatch-sessions.")
    family.add_metric((), {"version": __version__})
    return family


def _server_family(spec: MetricSpec, states: Iterable[ServerState]) -> Metric:
    samples = (((state.server, *labels), value) for state in states for labels, value in spec.samples(state))
    return _family(spec, ("server", *spec.labels), samples)


def _family(spec: MetricSpec | DaemonMetricSpec, labels: tuple[str, ...], samples: Iterable[Sample]) -> Metric:
    family, add = _FAMILIES[spec.kind](f"{PREFIX}{spec.name}", spec.help, labels)
    for values, value in samples:
        add(values, value)
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


def _stateset(name: str, text: str, labels: tuple[str, ...]) -> tuple[Metric, _Add]:
    family = StateSetMetricFamily(name, text, labels=labels)
    return family, family.add_metric


def _histogram(name: str, text: str, labels: tuple[str, ...]) -> tuple[Metric, _Add]:
    family = HistogramMetricFamily(name, text, labels=labels)

    def add(values: tuple[str, ...], histogram: Histogram) -> None:
        bounds = (*(str(float(bound)) for bound in histogram.bounds), "+Inf")
        family.add_metric(values, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum)

    return family, add


_FAMILIES: Mapping[MetricKind, Callable[[str, str, tuple[str, ...]], tuple[Metric, _Add]]] = {
    "gauge": _gauge,
    "counter": _counter,
    "histogram": _histogram,
    "info": _info,
    "stateset": _stateset,
}
