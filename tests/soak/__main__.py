"""`python -m tests.soak`: poll as often as in a day, and fail if the daemon grows."""

import argparse
import contextlib
import http.client
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from pgwatch_sessions.demo.child_process import ChildProcess, child_process, temporary_folder
from pgwatch_sessions.demo.postgres import running_postgres
from tests.bench.exporter import free_address
from tests.bench.processes import resident_kib
from tests.bench.tables import number, table
from tests.soak.churn import churn
from tests.soak.lines import Line, fitted
from tests.support.inside import held_by, observable
from tests.support.programs import environment
from tests.support.waiting import until

_EVERY_SECONDS = 0.5
#: The part of the polls after which all that has a bound has reached it: names, statements, windows, files.
_WARM_UP = 0.4
_A_DAY = 8_640


class Sample(NamedTuple):
    """What the daemon holds after a number of polls."""

    polls: int
    kib: int
    descriptors: int
    tasks: int
    threads: int


class Measure(NamedTuple):
    """A column of the samples."""

    name: str
    field: str
    #: A rise of less than this per 1,000 polls does not count: what Python's allocator may need.
    least: float = 0.0


MEASURES = (
    Measure("resident memory, KiB", "kib", least=20.0),
    Measure("descriptors", "descriptors"),
    Measure("tasks", "tasks"),
    Measure("threads", "threads"),
)


def main() -> int:
    """Print the samples and the slopes; return 1 if something rises."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--polls", type=int, default=_A_DAY, help=f"how many; default: {_A_DAY}, a day's")
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between two; default: 0.05")
    options = parser.parse_args()
    begun = time.monotonic()
    samples = list(_samples(options.polls, options.interval))
    seconds = time.monotonic() - begun
    warm = [sample for sample in samples if sample.polls >= _WARM_UP * options.polls]
    lines = {measure: _line(warm, measure) for measure in MEASURES}
    _show(f"{samples[-1].polls:,} polls in {seconds:.0f} s, {len(warm)} samples after the first {_WARM_UP:.0%}\n\n")
    _show(_values(samples))
    _show(_slopes(lines))
    return int(any(line.rises(measure.least) for measure, line in lines.items()))


def _samples(polls: int, interval: float) -> Iterator[Sample]:
    """Run server, clients and daemon, and yield samples until there were so many polls."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_postgres(18))
        stack.enter_context(churn(server.dsn()))
        folder = stack.enter_context(temporary_folder()).path
        inside, address = folder / "inside", free_address()
        command = (sys.executable, "-m", "tests.soak.daemon", server.dsn(), address, str(folder), str(interval))
        env = {**environment(), **observable(inside)}
        process = stack.enter_context(child_process(command, env=env, log=folder / "log"))
        until(lambda: _polls_of(process, folder / "log", address), within=30)
        told = 0
        while (polled := _polls_of(process, folder / "log", address)) < polls:
            held = held_by(process.pid, inside)
            yield Sample(
                polls=polled,
                kib=resident_kib(process.pid),
                descriptors=held.descriptors.total(),
                tasks=held.tasks.total(),
                threads=len(list(Path(f"/proc/{process.pid}/task").iterdir())),
            )
            if polled - told >= polls / 10:
                told = polled
                _show(f"{polled:,} polls\n")
            time.sleep(_EVERY_SECONDS)


def _polls_of(process: ChildProcess, log: Path, address: str) -> int:
    """Scrape the daemon, as Prometheus does; 0 if it does not listen yet."""
    assert process.poll() is None, log.read_text()[-2000:]
    try:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
    except ConnectionRefusedError:
        return 0
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return int(sum(sample.value for sample in samples if sample.name.endswith("poll_duration_seconds_count")))


def _line(samples: Sequence[Sample], measure: Measure) -> Line:
    return fitted([sample.polls / 1000 for sample in samples], [getattr(sample, measure.field) for sample in samples])


def _values(samples: Sequence[Sample]) -> str:
    shown = [samples[len(samples) * part // 5] for part in range(5)] + [samples[-1]]
    return table(
        "after so many polls",
        ["", *(f"{sample.polls:,}" for sample in shown)],
        [[measure.name, *(getattr(sample, measure.field) for sample in shown)] for measure in MEASURES],
    )


def _slopes(lines: dict[Measure, Line]) -> str:
    return table(
        "growth per 1,000 polls",
        ["", "slope", "standard error", ""],
        [
            [measure.name, f"{line.slope:+.3f}", number(line.error), "RISES" if line.rises(measure.least) else "flat"]
            for measure, line in lines.items()
        ],
    )


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
