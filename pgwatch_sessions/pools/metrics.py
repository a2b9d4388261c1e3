"""Shows pools to Prometheus, by prometheus_client.

    from prometheus_client import REGISTRY
    from pgwatch_sessions.pools.metrics import PoolCollector

    REGISTRY.register(PoolCollector())

The numbers are read from the ledgers at each scrape, so a checkout updates no metric.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pgwatch_sessions.pools.histogram import BOUNDS, Durations
from pgwatch_sessions.pools.instrument import PoolHandle, handles
from pgwatch_sessions.pools.snapshot import PoolSnapshot
from pgwatch_sessions.pools.table import BORROWED, METRICS, OVERDUE, POOL, SITE, TIMES, PoolMetric, PoolTime, SiteLabels


def prometheus_name(name: str) -> str:
    """Return a name of OpenTelemetry as Prometheus writes it."""
    return name.replace(".", "_")


def label_names(metric: PoolMetric) -> list[str]:
    """Return the labels of a metric, as Prometheus writes them."""
    return [prometheus_name(name) for name in (POOL, metric.attribute) if name is not None]


class PoolCollector(Collector):
    """Makes the metrics of all pools of this process that are instrumented at the time of the scrape.

    In prometheus_client's multiprocess mode use `publish_multiprocess()` instead: this one would show only the process
    that answers the scrape.
    """

    def __init__(self) -> None:
        """Collect from the pools that there will be."""
        self._sites = SiteLabels()

    def describe(self) -> Iterator[Metric]:
        """Yield the families without samples. The registry needs them to find duplicates."""
        return self._families(())

    def collect(self) -> Iterator[Metric]:
        """Yield the families with their samples."""
        return self._families(handles())

    def _families(self, pools: Iterable[PoolHandle]) -> Iterator[Metric]:
        pools = tuple(pools)
        snapshots = [pool.snapshot() for pool in pools]
        yield from (_family(metric, snapshots) for metric in METRICS)
        yield from (_histogram(metric, snapshots) for metric in TIMES)
        yield self._by_site(BORROWED, pools, overdue=False)
        yield self._by_site(OVERDUE, pools, overdue=True)

    def _by_site(self, metric: tuple[str, str], pools: Iterable[PoolHandle], *, overdue: bool) -> Metric:
        name, documentation = metric
        family = GaugeMetricFamily(prometheus_name(name), documentation, labels=(prometheus_name(POOL), SITE))
        for pool in pools:
            for site, number in self._sites.count(pool, overdue=overdue).items():
                family.add_metric((pool.name, site), number)
        return family


def _family(metric: PoolMetric, snapshots: Iterable[PoolSnapshot]) -> Metric:
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(prometheus_name(metric.name), metric.help, labels=label_names(metric))
    for snapshot in snapshots:
        for value, number in metric.values(snapshot):
            family.add_metric([snapshot.name] if value is None else [snapshot.name, value], number)
    return family


def _histogram(metric: PoolTime, snapshots: Iterable[PoolSnapshot]) -> Metric:
    family = HistogramMetricFamily(
        prometheus_name(metric.name) + "_seconds", metric.help, labels=(prometheus_name(POOL),)
    )
    for snapshot in snapshots:
        durations = metric.values(snapshot)
        family.add_metric((snapshot.name,), buckets=_buckets(durations), sum_value=durations.sum)
    return family


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    bounds = [*map(str, BOUNDS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
