"""Services as processes of their own, and requests to them."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pgwatch_sessions.demo.child_process import child_process, temporary_folder
from pgwatch_sessions.demo.postgres import last_lines
from pgwatch_sessions.demo.traffic import get
from tests.support.waiting import until

ROOT = Path(__file__).parent.parent.parent
#: Requests that get no answer within ten seconds.
NO_ANSWER = "none"
#: Short: a service whose threads all wait for a connection does not end by itself.
_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running service."""

    address: str

    def pool(self) -> dict[str, float]:
        """Return what the service says of its pool."""
        figures: dict[str, float] = json.loads(asyncio.run(get(self.address, "/pool"))[1])
        return figures

    def visit(self, *paths: str, times: int, pause: float) -> Counter[str]:
        """Request the paths in turn, `times` requests in all, one after the other; return the statuses."""
        return asyncio.run(self._visit(paths, times, pause))

    def visit_at_once(self, path: str, times: int) -> Counter[str]:
        """Send all requests at the same time, and return the statuses."""

        async def all_at_once() -> Counter[str]:
            return Counter(await asyncio.gather(*(_status(self.address, path) for _ in range(times))))

        return asyncio.run(all_at_once())

    def load(self, path: str, *, connections: int, seconds: float) -> Counter[str]:
        """Keep so many connections busy for some seconds; return the statuses of the answers."""
        return asyncio.run(_load(self.address, path, connections, seconds))

    async def _visit(self, paths: Sequence[str], times: int, pause: float) -> Counter[str]:
        statuses = Counter[str]()
        begun = time.monotonic()
        for number in range(times):
            await asyncio.sleep(begun + number * pause - time.monotonic())
            statuses[await _status(self.address, paths[number % len(paths)])] += 1
        return statuses


@contextlib.contextmanager
def service(
    name: str,
    dsn: str,
    *,
    form: str = "",
    size: int = 5,
    overflow: int = 10,
    timeout: float = 30.0,
    python: Sequence[str] = (sys.executable,),
) -> Iterator[Service]:
    """Run the service of this module in tests/claims/services until the block ends."""
    command = [*python, "-m", f"tests.claims.services.{name}", f"--dsn={dsn}", f"--form={form}", f"--size={size}"]
    command += [f"--overflow={overflow}", f"--timeout={timeout}"]
    with temporary_folder() as folder:
        log = folder.path / "log"
        log.touch()
        with child_process(
            command, folder=folder, cwd=ROOT, env=os.environ, log=log, patience=_PATIENCE_SECONDS
        ) as process:
            until(lambda: process.poll() is not None or b"\n" in log.read_bytes(), within=60)
            address = log.read_text().partition("\n")[0]
            assert address.startswith("http"), f"{name} did not start: {last_lines(log)}"
            yield Service(address=address)


def shown(counts: Mapping[str, int]) -> str:
    """Return counted statuses or states for a table: `200: 40, 500: 2`."""
    return ", ".join(f"{name}: {number:,}" for name, number in sorted(counts.items())) or "none"


async def _status(address: str, path: str) -> str:
    try:
        status, _ = await get(address, path)
    except (OSError, TimeoutError):
        return NO_ANSWER
    return str(status)


async def _load(address: str, path: str, connections: int, seconds: float) -> Counter[str]:
    statuses = Counter[str]()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(_keep_busy(address, path, statuses) for _ in range(connections)))
    return statuses


async def _keep_busy(address: str, path: str, statuses: Counter[str]) -> None:
    """Send one request after the other, until cancelled. After an exception of a handler, uvicorn disconnects."""
    host = urlsplit(address)
    request = f"GET {path} HTTP/1.1\r\nHost: {host.netloc}\r\n\r\n".encode()
    while True:
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                statuses[head.split(maxsplit=2)[1]] += 1
                fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
                await reader.readexactly(int(fields.get("content-length", 0)))
