"""The users of the sample service: healthy requests, and now and then the one that leaks.

python traffic.py http://orders:8080 --bad-every 4    (prints every 10 s what came of them)
"""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from pgwatch_sessions.demo.traffic import Outcome, Traffic

_TELL_SECONDS = 10.0


async def send(address: str, *, bad_every: float, beat: Path | None) -> None:
    """Send requests until cancelled."""
    traffic = Traffic()
    traffic.address, traffic.bad_every = address, bad_every
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic.flow())
        tasks.create_task(tell(traffic, beat))


async def tell(traffic: Traffic, beat: Path | None) -> None:
    """Print what came of the requests since the last line, and touch the file if there were any."""
    told = traffic.outcomes.copy()
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        new, told = traffic.outcomes - told, traffic.outcomes.copy()
        counts = ", ".join(f"{new[outcome]} {outcome.name.lower()}" for outcome in Outcome)
        sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {counts}\n")
        sys.stdout.flush()
        if new and beat:
            await asyncio.to_thread(beat.touch)


def main() -> None:
    """Send requests until SIGTERM."""
    parser = argparse.ArgumentParser(description="Requests to the sample service at a steady pace.")
    parser.add_argument("address", help="of the service, such as http://127.0.0.1:8080")
    parser.add_argument("--bad-every", type=float, default=4.0, help="seconds between two requests that leak")
    parser.add_argument("--beat", type=Path, help="file to touch while requests come back")
    options = parser.parse_args()
    asyncio.run(send(options.address, bad_every=options.bad_every, beat=options.beat))


if __name__ == "__main__":
    main()
