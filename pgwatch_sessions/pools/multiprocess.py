"""Shows the pools of all worker processes to Prometheus, by prometheus_client's multiprocess mode, as under gunicorn.

    publish_multiprocess()

In this mode, prometheus_client adds up files that each worker writes into PROMETHEUS_MULTIPROC_DIR. A thread of each
worker writes the numbers of its pools there every few seconds. Call it before or after the workers are forked; in the
child of a fork, a thread of its own goes on.
"""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

from pgwatch_sessions.pools.histogram import BOUNDS, Durations
from pgwatch_sessions.pools.instrument import handles
from pgwatch_sessions.pools.ledger import logger
from pgwatch_sessions.pools.metrics import label_names, prometheus_name
from pgwatch_sessions.pools.table import METRICS, POOL, TIMES, PoolMetric

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_GAUGES_OF_A_PROCESS = re.compile(r"gauge_live\w*_(\d+)\.db")


def publish_multiprocess(every: float = 5.0) -> None:
    """Write the numbers of this process's pools every so many seconds. A second call changes nothing.

    Limits are added up, too: `db_client_connection_max` is what all workers together may open, and their master, if it
    made its pool before it forked them. Workers that have died leave the gauges; what they counted stays in the
    counters.
    """
    if not os.environ.get(_FOLDER):
        raise RuntimeError(f"{_FOLDER} is not set: without it, register PoolCollector() instead")
    _publishing.start(every)


class Publisher:
    """Writes the numbers of this process into prometheus_client's files."""

    def __init__(self) -> None:
        self._metrics: Mapping[str, Any] = {metric.name: _metric(metric) for metric in METRICS}
        self._times: Mapping[str, Any] = {
            time.name: Histogram(
                prometheus_name(time.name) + "_seconds",
                time.help,
                [prometheus_name(POOL)],
                registry=None,
                buckets=BOUNDS,
            )
            for time in TIMES
        }
        self._gauges_before: set[tuple[str, tuple[str, ...]]] = set()
        self._counted: dict[tuple[str, ...], int] = {}
        self._durations: dict[tuple[str, str], Durations] = {}

    def forget(self) -> None:
        """Start over, in the child of a fork, whose counts begin at 0."""
        self._gauges_before = set()
        self._counted = {}
        self._durations = {}

    def publish(self) -> None:
        """Write the numbers now, and remove the gauges of processes that have died."""
        gauges: set[tuple[str, tuple[str, ...]]] = set()
        for snapshot in [handle.snapshot() for handle in handles()]:
            for metric in METRICS:
                for value, number in metric.values(snapshot):
                    labels: tuple[str, ...] = (snapshot.name,) if value is None else (snapshot.name, value)
                    if metric.kind == "counter":
                        self._count((metric.name, *labels), number)
                    else:
                        self._metrics[metric.name].labels(*labels).set(number)
                        gauges.add((metric.name, labels))
            for time in TIMES:
                self._observe(time.name, snapshot.name, time.values(snapshot))
        for name, labels in self._gauges_before - gauges:  # of pools that are gone
            self._metrics[name].labels(*labels).set(0)
        self._gauges_before = gauges
        _remove_dead(Path(os.environ[_FOLDER]))

    def _count(self, key: tuple[str, ...], number: int) -> None:
        before = self._counted.get(key, 0)
        name, *labels = key
        # Another pool of the same name has begun at 0.
        self._metrics[name].labels(*labels).inc(number - before if number >= before else number)
        self._counted[key] = number

    def _observe(self, name: str, pool: str, durations: Durations) -> None:
        before = self._durations.get((name, pool))
        if before is None or durations.count < before.count:
            before = Durations(counts=(0,) * len(durations.counts), sum=0.0)
        child = self._times[name].labels(pool)
        # prometheus_client has no method to add many observations, and to repeat them would take 1 µs each.
        for bucket, now, then in zip(child._buckets, durations.counts, before.counts, strict=True):  # noqa: SLF001
            bucket.inc(now - then)
        child._sum.inc(durations.sum - before.sum)  # noqa: SLF001  # as above
        self._durations[name, pool] = durations


def _metric(metric: PoolMetric) -> Counter | Gauge:
    """Return a metric of prometheus_client that no registry has: its files are read instead."""
    name, labels = prometheus_name(metric.name), label_names(metric)
    if metric.kind == "counter":
        return Counter(name, metric.help, labels, registry=None)
    return Gauge(name, metric.help, labels, registry=None, multiprocess_mode="livesum")


def _remove_dead(folder: Path) -> None:
    """Remove the gauges of processes that no longer exist, as gunicorn's hook `child_exit` would."""
    pids = {int(found[1]) for path in folder.iterdir() if (found := _GAUGES_OF_A_PROCESS.fullmatch(path.name))}
    for pid in pids:
        if not _exists(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # prometheus_client lacks its type


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


class _Publishing:
    """The thread that publishes."""

    def __init__(self) -> None:
        self._publisher: Publisher | None = None
        self._every = 0.0
        # A fork must not happen while this thread publishes: the child would inherit prometheus_client's lock in its
        # locked state, and nothing in the child would release it. So a fork takes this lock first.
        self._lock = threading.Lock()
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._after_fork
        )

    def start(self, every: float) -> None:
        if self._publisher is None:
            self._publisher = Publisher()
            self._every = every
            self._start_thread()

    def _after_fork(self) -> None:
        self._lock.release()
        if self._publisher is not None:
            self._publisher.forget()
            self._start_thread()

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name="pgwatch_sessions.pools metrics", daemon=True).start()

    def _run(self) -> None:
        waiting = threading.Event()
        while self._publisher is not None:
            try:
                with self._lock:
                    self._publisher.publish()
            except Exception:  # noqa: BLE001  # it must not end the thread with a traceback on the console
                logger.exception("the numbers of pools are no longer published: error in pgwatch_sessions.pools")
                return
            waiting.wait(self._every)


_publishing = _Publishing()
