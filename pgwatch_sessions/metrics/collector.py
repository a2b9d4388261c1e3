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
from pgwatch_sessions.metrics.table import METRICS, PREFIX, RELOAD_METRICS, ConfigReload, MetricKind, MetricSpec


class StateCollector(Collector):
    """Makes every family from the states that are published at the time of the scrape."""

    def __init__(
        self,
        published: Callable[[], Iterable[ServerState]],
        config_reload: Callable[[], ConfigReload] | None = None,
    ) -> None:
        """Collect from the states that `published` returns, one for each server, and from `config_reload`."""
        self._published = published
        self._config_reload = config_reload

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples. The registry needs them to select by `name[]` and to find duplicates."""
        yield from (_family(spec, ()) for spec in METRICS)
        yield from self._reload_families()
        yield _build_info()

    def collect(self) -> Iterator[Metric]:
        """Yield the families with their samples."""
        states = tuple(self._published())
        yield from (_family(spec, states) for spec in METRICS)
        yield from self._reload_families()
        yield _build_info()

    def _reload_families(self) -> Iterator[Metric]:
        if self._config_reload is not None:
            last = self._config_reload()
            for spec in RELOAD_METRICS:
                yield GaugeMetricFamily(f"{PREFIX}{spec.name}", spec.help, value=spec.value(last))


def registry_of(
    published: Callable[[], Iterable[ServerState]], config_reload: Callable[[], ConfigReload] | None = None
) -> CollectorRegistry:
    """Return a registry of our metrics and of those of this process."""
    registry = CollectorRegistry()
    registry.register(StateCollector(published, config_reload))
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
