import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import Engine, create_engine, exc

from pgwatch_sessions.pools import instrument, uninstrument
from pgwatch_sessions.pools.ledger import Ledger
from pgwatch_sessions.pools.otel import otel_meters
from tests.support.servers import Database


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """Return an engine of one connection."""
    engine = create_engine(
        database.dsn().replace("postgresql:", "postgresql+psycopg:"), pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    instrument(engine, name="otel orders")
    yield engine
    uninstrument(engine)
    engine.dispose()


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    """Return what collects the metrics of pools."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    otel_meters(provider.get_meter("orders"))
    yield reader
    provider.shutdown()
    Ledger.keeps_samples = False


def _points(reader: InMemoryMetricReader) -> dict[tuple[str, str | None], Any]:
    """Return the data point of each metric and further attribute of the pool."""
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[tuple[str, str | None], Any] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            attributes = dict(point.attributes or {})
            if attributes.pop("db.client.connection.pool.name") == "otel orders":
                further = next((str(value) for value in attributes.values()), None)
                found[metric.name.removeprefix("db.client.connection."), further] = point
    return found


def test_the_instruments_have_opentelemetrys_names_and_the_ledgers_numbers(
    engine: Engine, reader: InMemoryMetricReader
) -> None:
    """They are read when the meter collects."""
    with engine.connect():
        with pytest.raises(exc.TimeoutError):
            engine.connect()
        points = _points(reader)
    values = {name: point.value for name, point in points.items() if hasattr(point, "value")}
    assert values["count", "used"] == 1
    assert values["count", "idle"] == 0
    assert values["max", None] == 1
    assert values["timeouts", None] == 1
    assert [site for name, site in values if name == "borrowed" and "test_otel.py" in str(site)]


def test_each_duration_is_recorded_once(engine: Engine, reader: InMemoryMetricReader) -> None:
    """A collection adds what came since the last one."""
    for _ in range(3):
        engine.connect().close()
    points = _points(reader)
    engine.connect().close()
    # Depending on the SDK, a value that is recorded during a collection is shown by this one or by the next, and a
    # histogram without new values is shown again or not.
    for _ in range(2):
        points |= _points(reader)
    assert (points["wait_time", None].count, points["use_time", None].count) == (4, 4)
    assert points["create_time", None].count == 1


@pytest.mark.slow
def test_without_opentelemetry_the_error_names_the_extra() -> None:
    """It is an extra of ours."""
    program = "import sys; sys.modules['opentelemetry.metrics'] = None; import pgwatch_sessions.pools.otel"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: opentelemetry is not installed: pip install 'pgwatch-sessions[otel]'" in ran.stderr
