"""The metrics that applications expose on their pools."""

from pgwatch_sessions.pools.metrics import PoolCollector

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
#: The names of their series, for each metric.
POOL_SERIES = {
    family.name: {f"{family.name}{suffix}" for suffix in _SUFFIXES.get(family.type, ("",))}
    for family in PoolCollector().describe()
}
POOL_METRICS = set[str]().union(*POOL_SERIES.values())
