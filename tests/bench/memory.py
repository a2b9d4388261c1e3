"""Memory of the daemon: the real program after its start, and its growth over many polls."""

import asyncio
import contextlib
import gc
import http.client
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from statistics import linear_regression
from typing import NamedTuple

import structlog
from prometheus_client import CollectorRegistry, generate_latest

import pgwatch_sessions.command_line
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.demo.child_process import child_process, temporary_folder
from pgwatch_sessions.demo.postgres import ENVIRONMENT, Postgres, running_postgres
from pgwatch_sessions.metrics.collector import registry_of
from pgwatch_sessions.poller import Poller
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.published_states import PublishedStates
from tests.bench.crowd import crowd, prepare
from tests.bench.exporter import free_address
from tests.bench.processes import resident_kib, resident_peak_kib, result_of
from tests.bench.tables import Limit, limits, table
from tests.support.waiting import until

_SESSIONS, _MOVING = 200, 20
_POLLS, _WARM_UP, _SAMPLE_EVERY = 20_000, 8_000, 250
_SCRAPE_EVERY = 20
_MIB = 1024
#: structlog loads rich (3 MiB) if it is installed. A development tool installs it; the package does not.
_AS_INSTALLED = "import sys; sys.modules['rich'] = None; from pgwatch_sessions.cli import main; main()"
#: Imported so that the polling process has the memory of the whole program.
_PROGRAM = pgwatch_sessions.command_line


class Sample(NamedTuple):
    """Memory after a number of polls."""

    polls: int
    kib: int
    #: Python's own blocks, which show growth smaller than a page.
    blocks: int


def bench() -> Iterator[str]:
    """Measure with sessions of which a tenth is working."""
    with running_postgres(18, settings={"max_connections": str(_SESSIONS + 50)}) as server:
        asyncio.run(prepare(server.dsn()))
        with crowd(server.dsn(), still=_SESSIONS - _MOVING, moving=_MOVING):
            states = list(_daemon(server))
            rows = [[what, kib / _MIB, peak / _MIB] for what, kib, peak in states]
            yield table(f"memory: the daemon at {_SESSIONS} sessions, MiB", ["", "resident", "peak"], rows)
            begun = time.monotonic()
            samples: list[Sample] = result_of(_poll_forever, server.dsn())
    yield _growth_table(samples, time.monotonic() - begun)
    warm = [sample for sample in samples if sample.polls >= _WARM_UP]
    polls = [sample.polls / 1000 for sample in warm]
    slope = linear_regression(polls, [sample.kib for sample in warm]).slope
    blocks = linear_regression(polls, [sample.blocks for sample in warm]).slope
    yield limits(
        Limit(
            what=f"{_SESSIONS} sessions: the daemon, at its peak", measured=states[-1][2] / _MIB, bound=50, unit=" MiB"
        ),
        Limit(what="growth per 1,000 polls after warm-up", measured=slope, bound=20, unit=" KiB"),
        Limit(what="growth per 1,000 polls after warm-up, blocks", measured=blocks, bound=100),
    )


def _daemon(server: Postgres) -> Iterator[tuple[str, int, int]]:
    """Run the program, and yield moments with its resident memory and peak, in KiB.

    The program ran once before, because compiling modules would add 8 MiB.
    """
    address = free_address()
    program = [sys.executable, "-c", _AS_INSTALLED]
    subprocess.run([*program, "--version"], check=True, stdout=subprocess.DEVNULL)
    command = [*program, "run", "--dsn", server.dsn(), "--listen", address, "--interval", "100ms"]
    with temporary_folder() as folder, child_process(command, env=ENVIRONMENT, log=folder.path / "log") as process:
        for polls in (1, 100):
            _until_polled(address, polls)
            yield f"after {polls} polls", resident_kib(process.pid), resident_peak_kib(process.pid)
        for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
            _metrics(address, {"Accept": accept, "Accept-Encoding": "gzip"})
        yield "after scrapes in every form", resident_kib(process.pid), resident_peak_kib(process.pid)


def _until_polled(address: str, times: int) -> None:
    until(lambda: _polls_of(address) >= times, within=60)


def _polls_of(address: str) -> int:
    """Return the number of polls of the daemon; 0 if it does not answer yet."""
    try:
        found = re.search(rb"\npgwatch_sessions_poll_duration_seconds_count\{[^}]*\} (\d+)", _metrics(address, {}))
    except ConnectionRefusedError:
        return 0
    return int(found[1]) if found else 0


def _metrics(address: str, headers: dict[str, str]) -> bytes:
    with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("GET", "/metrics", headers=headers)
        return connection.getresponse().read()


def _poll_forever(parent: Connection, dsn: str) -> None:
    """Poll as fast as possible, in a separate process, and send the samples."""
    structlog.configure(processors=[_drop])
    parent.send(asyncio.run(_samples(dsn)))


async def _samples(dsn: str) -> list[Sample]:
    board = PublishedStates(["bench"])
    held = HeldConnection(Target(name="bench", dsn=dsn), timeout=10, parse=parse_statement, jitter=lambda _: 0.0)
    # Short windows, so that they pass many times: a poll here takes milliseconds, instead of one every 10 s.
    policy = Policy(hold_limit=1, growth_window=5)
    poller = Poller(board.states()["bench"], held, policy=policy, publish=board.publish, log=structlog.get_logger())
    registry: CollectorRegistry = registry_of(lambda: board.states().values())
    samples = []
    for polls in range(1, _POLLS + 1):
        await poller.poll()
        if polls % _SCRAPE_EVERY == 0:
            generate_latest(registry)
        if polls % _SAMPLE_EVERY == 0:
            gc.collect()
            samples.append(Sample(polls=polls, kib=resident_kib(), blocks=sys.getallocatedblocks()))
    await poller.close()
    return samples


def _drop(_logger: object, _method: str, _event: object) -> str:
    raise structlog.DropEvent


def _growth_table(samples: list[Sample], seconds: float) -> str:
    shown = [sample for sample in samples if sample.polls in {_SAMPLE_EVERY, 1_000} or sample.polls % 5_000 == 0]
    return table(
        f"memory: polling without a pause, {_POLLS / seconds:,.0f} polls per second",
        ["polls", *(f"{sample.polls:,}" for sample in shown)],
        [["resident, MiB", *(s.kib / _MIB for s in shown)], ["blocks", *(s.blocks for s in shown)]],
    )
