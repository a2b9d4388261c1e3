"""`python -m tests.soak.daemon DSN HOST:PORT FOLDER INTERVAL`: the daemon with times that the command does not allow.

A day's polls are 8,640. With the shortest interval of the command, 100 ms, they would take a quarter of an hour.
"""

import asyncio
import sys
from pathlib import Path

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.daemon import running
from pgwatch_sessions.logs import configure_logs
from pgwatch_sessions.pollers import Watch
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.web.http_server import bind

_DEFAULTS = Policy()
_INTERVAL = 10.0


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


if __name__ == "__main__":
    configure_logs("json", "info")
    asyncio.run(_run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
