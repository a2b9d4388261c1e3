import contextlib
import re
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine, create_engine, exc

from pgwatch_sessions.pools import instrument, uninstrument
from pgwatch_sessions.pools.metrics import PoolCollector
from pgwatch_sessions.pools.table import SiteLabels
from tests.support.servers import Database
from tests.support.waiting import until


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """Return an engine of one connection and one in overflow."""
    engine = create_engine(
        database.dsn().replace("postgresql:", "postgresql+psycopg:"), pool_size=1, max_overflow=1, pool_timeout=0.01
    )
    instrument(engine, name="orders", leak_threshold=0.02)
    yield engine
    uninstrument(engine)
    engine.dispose()


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry of nothing but pools."""
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    return registry


def _samples(registry: CollectorRegistry, pool: str = "orders") -> dict[str, float]:
    """Return the value of each series of a pool, named without the prefix and the pool."""
    found = {}
    for line in generate_latest(registry).decode().splitlines():
        if f'pool_name="{pool}"' in line:
            series, value = line.rsplit(" ", 1)
            series = re.sub(
                r'db_client_connection_pool_name="[^"]*",?', "", series.removeprefix("db_client_connection_")
            )
            found[series.replace("db_client_connection_", "").replace("{}", "")] = float(value)
    return found


def test_a_scrape_shows_the_pool_at_that_time(engine: Engine, registry: CollectorRegistry) -> None:
    """The names are OpenTelemetry's, with underscores."""
    with engine.connect(), engine.connect(), pytest.raises(exc.TimeoutError):
        engine.connect()
    with engine.connect():
        samples = _samples(registry)
    assert {name: value for name, value in samples.items() if "_time_" not in name and "site" not in name} == {
        'count{state="used"}': 1,
        'count{state="idle"}': 0,
        "max": 2,
        "idle_max": 1,
        "pending_requests": 0,
        "timeouts_total": 1,
        "overflow": 0,
        "cancelled_waits_total": 0,
        "failed_waits_total": 0,
        "collected_total": 0,
        "detached_total": 0,
    }


def test_durations_are_histograms_in_seconds(engine: Engine, registry: CollectorRegistry) -> None:
    """Each bucket counts what is at most its bound."""
    with engine.connect():
        until(lambda: instrument(engine).borrowed(older_than=0.06))
    samples = _samples(registry)
    assert (samples["use_time_seconds_count"], samples["wait_time_seconds_count"]) == (1, 1)
    assert 0.06 <= samples["use_time_seconds_sum"] < 60
    assert samples['use_time_seconds_bucket{le="0.05"}'] == 0
    assert samples['use_time_seconds_bucket{le="60.0"}'] == samples['use_time_seconds_bucket{le="+Inf"}'] == 1


def test_borrowers_are_counted_by_line_and_those_above_the_threshold_again(
    engine: Engine, registry: CollectorRegistry
) -> None:
    """This is the metric to find a leak by."""

    def leak() -> None:
        with engine.connect(), engine.connect():
            until(lambda: len(instrument(engine).borrowed(older_than=0.02)) == 2)
            samples = {name: value for name, value in _samples(registry).items() if "site" in name}
            assert list(samples.values()) == [2, 2]
            (borrowed, overdue) = samples
            assert re.fullmatch(r'borrowed{site="tests/pools/test_metrics.py:\d+ in .*leak"}', borrowed)
            assert overdue.startswith("overdue{")

    leak()
    assert not [name for name in _samples(registry) if "site" in name]


def test_lines_beyond_the_bound_are_counted_together(engine: Engine) -> None:
    """A label with a value for each of a thousand lines would cost more than it tells."""
    sites = SiteLabels(most=1)
    first = engine.connect()
    second = engine.connect()
    counted = sites.count(instrument(engine), overdue=False)
    assert list(counted.values()) == [1, 1]
    assert "other" in counted
    first.close()
    second.close()


def test_a_pool_that_is_not_watched_any_more_has_no_series(engine: Engine, registry: CollectorRegistry) -> None:
    """Stale numbers would look like fresh ones."""
    assert _samples(registry)
    uninstrument(engine)
    assert _samples(registry) == {}


def test_scrapes_and_checkouts_do_not_disturb_each_other(engine: Engine, registry: CollectorRegistry) -> None:
    """Threads borrow while others read."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            with contextlib.suppress(exc.TimeoutError):
                engine.connect().close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        samples = _samples(registry)
        assert 0 <= samples['count{state="used"}'] <= 3
    ended.set()
    for thread in threads:
        thread.join()
    assert _samples(registry)['count{state="used"}'] == 0
    assert _samples(registry)["pending_requests"] == 0
