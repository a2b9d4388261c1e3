"""Shows pools to OpenTelemetry, by instruments of a meter.

    from opentelemetry import metrics
    from pgwatch_sessions.pools.otel import otel_meters

    otel_meters(metrics.get_meter("orders"))

Numbers are read from the ledgers when the meter collects. Durations are kept until then, at most 10,000 of each pool: a
histogram of OpenTelemetry costs 5 µs for each value, which a checkout must not.
"""

from collections.abc import Callable, Iterator

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
except ImportError as error:
    raise ImportError("opentelemetry is not installed: pip install 'pgwatch-sessions[otel]'") from error

from pgwatch_sessions.pools.instrument import handles
from pgwatch_sessions.pools.ledger import Ledger
from pgwatch_sessions.pools.table import BORROWED, METRICS, OVERDUE, POOL, SITE, TIMES, PoolMetric, SiteLabels

Callback = Callable[[CallbackOptions], Iterator[Observation]]


def otel_meters(meter: Meter) -> None:
    """Make an instrument of the meter for each metric of pools. Call it once for a meter."""
    Ledger.keeps_samples = True
    _times(meter)
    for metric in METRICS:
        make = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_up_down_counter
        make(metric.name, [_callback(metric)], unit=metric.unit, description=metric.help)
    sites = SiteLabels()
    for (name, description), overdue in ((BORROWED, False), (OVERDUE, True)):
        callback = _by_site(sites, overdue=overdue)
        meter.create_observable_up_down_counter(name, [callback], unit="{connection}", description=description)


def _callback(metric: PoolMetric) -> Callback:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for handle in handles():
            for value, number in metric.values(handle.snapshot()):
                further = {} if metric.attribute is None or value is None else {metric.attribute: value}
                yield Observation(number, {POOL: handle.name, **further})

    return observe


def _by_site(sites: SiteLabels, *, overdue: bool) -> Callback:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for handle in handles():
            for site, number in sites.count(handle, overdue=overdue).items():
                yield Observation(number, {POOL: handle.name, SITE: site})

    return observe


def _times(meter: Meter) -> None:
    """Make the histograms, and a counter whose callback fills them at each collection."""
    histograms = {time.kind: meter.create_histogram(time.name, unit="s", description=time.help) for time in TIMES}

    def fill(_: CallbackOptions) -> Iterator[Observation]:
        for handle in handles():
            samples = handle.take_samples()
            for kind, seconds in samples:
                histograms[kind].record(seconds, {POOL: handle.name})
            yield Observation(len(samples), {POOL: handle.name})

    meter.create_observable_gauge(
        "db.client.connection.samples",
        [fill],
        unit="{duration}",
        description="Durations that this collection added to the histograms. At 10,000, some may be lost.",
    )
