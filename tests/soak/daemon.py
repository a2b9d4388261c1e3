"""`python -m tests.soak.daemon DSN HOST:PORT FOLDER INTERVAL`: the daemon with times that the command does not allow.

A day's polls are 8,640. With the shortest interval of the command, 100 ms, they would take a quarter of an hour.
"""

import asyncio
import sys
from pathlib import Path

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.daemon import running
from pgwatch_sessions.logs import configure_logs
from pgwatch_sessions.pollers import Watch
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.recording.writing import encode_poll
from pgwatch_sessions.web.http_server import bind
from tests.support.values import NOW, session, snapshot

_DEFAULTS = Policy()
_INTERVAL = 10.0
#: The largest cache has 8,192 places.
_MORE_THAN_CACHED = 10_000


async def _run(dsn: str, address: str, folder: Path, interval: float) -> None:
    """Poll at this interval, with all thresholds as much shorter, so that each of them passes as often as in a day."""
    scale = interval / _INTERVAL
    watch = Watch(
        targets=(Target(name="soak", dsn=dsn),),
        interval=interval,
        timeout=5.0,
        policy=Policy(
            hold_limit=_DEFAULTS.hold_limit * scale,
            growth_window=_DEFAULTS.growth_window * scale,
            horizon=_DEFAULTS.horizon * scale,
        ),
        parse=parse_statement,
        record_dir=folder / "records",
        record_max_bytes=1_000_000,
        state_dir=folder / "state",
    )
    host, _, port = address.partition(":")
    async with running(watch, bind(host, int(port))) as daemon:
        await daemon.end


def _fill_caches() -> None:
    """Parse and encode more statements, names and times than the caches hold, so that they cannot grow any more."""
    sessions = (
        session(
            number,
            client=Client("postgres", "postgres", f"before-{number}"),
            since=NOW + number / 7,
            born=NOW - number / 7,
            query=f"SELECT {number}, 0 /*route='/jobs/{number % 500}/run'*/",
        )
        for number in range(_MORE_THAN_CACHED)
    )
    encode_poll(snapshot(*sessions), server="soak", at=NOW)


if __name__ == "__main__":
    configure_logs("json", "info")
    _fill_caches()
    asyncio.run(_run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
