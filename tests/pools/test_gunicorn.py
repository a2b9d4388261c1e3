"""The pools of gunicorn's workers, in prometheus_client's multiprocess mode."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.servers import Database
from tests.support.waiting import until

pytestmark = pytest.mark.slow

_GTHREAD = ["--worker-class=gthread", "--threads=2", "tests.pools.gunicorn_application:wsgi"]
_UVICORN = ["--worker-class=uvicorn.workers.UvicornWorker", "tests.pools.gunicorn_application:asgi"]
#: Seconds until a worker has imported the application, on a machine that is busy.
_SLOWEST = 60
_USED = 'db_client_connection_count{db_client_connection_state="used"}'
_MAX = "db_client_connection_max{}"
_USES = "db_client_connection_use_time_seconds_count{}"


class Site:
    """A site that gunicorn serves with two workers."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str) -> str:
        """Return an answer of one of the workers."""
        return httpx.get(self._url + path, headers={"Connection": "close"}, timeout=_SLOWEST).text

    def pids(self, path: str) -> set[int]:
        """Ask until both workers have answered, and return their pids."""
        pids: set[int] = set()

        def both() -> bool:
            pids.add(int(self.get(path)))
            return len(pids) == 2

        until(both, within=_SLOWEST)
        return pids

    def series(self, name: str) -> float | None:
        """Return the value of a series of the pool orders; None if there is none."""
        for line in self.get("/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if series.replace('db_client_connection_pool_name="orders"', "").replace("{,", "{") == name:
                return float(value)
        return None


@contextmanager
def _served(database: Database, folder: Path, *options: str) -> Iterator[Site]:
    log = folder / "log"
    numbers = folder / "numbers"
    numbers.mkdir()
    url = database.dsn().replace("postgresql:", "postgresql+psycopg:")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0", "--workers=2", "--no-control-socket", *options],
            stderr=output,
            env={**os.environ, "DATABASE_URL": url, "PROMETHEUS_MULTIPROC_DIR": str(numbers)},
            start_new_session=True,
        )
    try:
        found = until(lambda: re.search(r"Listening at: (http://127\.0\.0\.1:\d+) ", log.read_text()), within=_SLOWEST)
        assert found is not None
        yield Site(found[1])
        process.terminate()
        assert process.wait(timeout=_SLOWEST) == 0, log.read_text()
        with pytest.raises(ProcessLookupError):  # no worker outlives its master
            os.killpg(process.pid, 0)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        pytest.param(_GTHREAD, 2, id="gthread"),
        pytest.param(["--preload", *_GTHREAD], 3, id="gthread, preloaded"),  # the master has a pool as well
        pytest.param(_UVICORN, 2, id="uvicorn"),
    ],
)
def test_a_scrape_of_any_worker_shows_all_of_them_and_none_that_was_killed(
    database: Database, tmp_path: Path, options: list[str], processes: int
) -> None:
    """Gauges lose a worker at SIGKILL; counters keep what it counted; its successor is added."""
    with _served(database, tmp_path, *options) as site:
        first, second = site.pids("/read")
        until(lambda: (site.series(_USES) or 0) >= 2)
        assert site.pids("/keep") == {first, second}
        until(lambda: site.series(_USED) == 2)
        assert site.series(_MAX) == 2 * processes
        uses = site.series(_USES)

        os.kill(first, signal.SIGKILL)
        until(lambda: site.series(_USED) == 1)
        assert site.series(_USES) == uses
        assert second in (after := site.pids("/read"))
        assert first not in after
        until(lambda: site.series(_MAX) == 2 * processes)
        until(lambda: (site.series(_USES) or 0) > (uses or 0))
