"""The machine's clock is set far ahead, or back, while the daemon runs."""

import resource
from pathlib import Path

import pytest

from pgwatch_sessions.demo.postgres import Postgres
from tests.support.daemons import Scrape, daemon

_HOUR = 3600
_YEAR = 365 * 24 * _HOUR
#: Adds what a file says to the clock that the daemon and its scheduler read.
_SETS_THE_CLOCK = """
import datetime, time
import apscheduler.schedulers.base
read, ahead = time.time, {ahead!r}
time.time = lambda: read() + float(open(ahead).read())
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)
apscheduler.schedulers.base.datetime = Clock
"""


@pytest.mark.parametrize("seconds", [26 * _YEAR, 31 * 24 * _HOUR, -_HOUR, -26 * _YEAR])
def test_polling_goes_on_when_the_clock_is_set(postgres: Postgres, tmp_path: Path, seconds: int) -> None:
    """The next polls come on time, and cost no more memory, however far the clock has jumped."""
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(_SETS_THE_CLOCK.format(ahead=str(ahead)))
    with daemon(dsn=postgres.dsn(), variables={"PYTHONPATH": str(tmp_path)}) as watching:
        before = watching.scrape_when(lambda scrape: scrape.polls() >= 5)
        memory = resident_memory(watching.process.pid)
        ahead.write_text(str(seconds))
        after = watching.scrape_when(lambda scrape: scrape.polls() >= before.polls() + 5, within=5)
        assert after.value("up") == 1
        assert abs(_last_poll(after) - _last_poll(before) - seconds) < _HOUR / 2
        assert resident_memory(watching.process.pid) - memory < 20 * 2**20


def _last_poll(scrape: Scrape) -> float:
    return scrape.value("last_poll_timestamp_seconds") or 0


def resident_memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
