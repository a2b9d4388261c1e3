"""Send requests to the sample service: healthy ones, and from time to time one that leaks.

python traffic.py http://orders:8080 --bad-every 4    (prints the outcomes every 10 s)
"""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from pgwatch_sessions.demo.traffic import Outcome, Traffic

_REPORT_SECONDS = 10.0


async def send(address: str, *, bad_every: float, beat: Path | None) -> None:
    """Send requests until cancelled."""
    traffic = Traffic()
    traffic.address, traffic.bad_every = address, bad_every
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic.flow())
        tasks.create_task(report(traffic, beat))


async def report(traffic: Traffic, beat: Path | None) -> None:
    """Print the outcomes since the last line, and touch the file `beat` if there were any."""
    reported = traffic.outcomes.copy()
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        new, reported = traffic.outcomes - reported, traffic.outcomes.copy()
        counts = ", ".join(f"{new[outcome]} {outcome.name.lower()}" for outcome in Outcome)
        sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {counts}\n")
        sys.stdout.flush()
        if new and beat:
            await asyncio.to_thread(beat.touch)


def main() -> None:
    """Send requests until SIGTERM."""
    parser = argparse.ArgumentParser(description="Send requests to the sample service at a steady rate.")
    parser.add_argument("address", help="address of the service, such as http://127.0.0.1:8080")
    parser.add_argument("--bad-every", type=float, default=4.0, help="seconds between two requests that leak")
    parser.add_argument("--beat", type=Path, help="file to touch while requests are answered")
    options = parser.parse_args()
    asyncio.run(send(options.address, bad_every=options.bad_every, beat=options.beat))


if __name__ == "__main__":
    main()
