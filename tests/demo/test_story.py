"""`pgwatch-sessions demo` as a process: what it shows, how it ends, and that it leaves nothing behind."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from pgwatch_sessions.demo.keeper import descendants
from tests.leftovers import alive, processes_of
from tests.programs import PROGRAM, environment
from tests.waiting import until


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """A demonstration under way."""

    process: subprocess.Popen[bytes]
    #: All that it makes lies here.
    folder: Path
    log: Path

    def said(self, pattern: str) -> list[str]:
        """Return what the output has of this so far."""
        return re.findall(pattern, self.log.read_text())

    def signal(self, number: signal.Signals) -> None:
        """Send the signal to its process group, as a terminal does with SIGINT."""
        os.killpg(self.process.pid, number)

    def leftovers(self) -> list[object]:
        """Return the processes and the files that there are of it."""
        return [*processes_of(self.folder), *self.folder.iterdir()]


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[Demo]:
    """Run the demonstration; at the end it must have ended and nothing of it be left."""
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)  # root's server runs as nobody
        folder, log = Path(base, "made"), Path(base, "log")
        folder.mkdir()
        env = {**environment(), "TMPDIR": str(folder)}
        with log.open("wb") as output:
            command = [*PROGRAM, "demo", *arguments]
            process = subprocess.Popen(
                command, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        with process:
            demonstration = Demo(process=process, folder=folder, log=log)
            try:
                yield demonstration
                process.wait(timeout=20)
            finally:
                process.kill()
        until(lambda: not demonstration.leftovers())


@pytest.fixture(scope="module")
def short_demo() -> Iterator[Demo]:
    """Return a demonstration that ends by itself after half a minute, during which other tests can run."""
    with demo("--once") as demonstration:
        yield demonstration


HELD = r"(\d+) idle in transaction"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_demonstration_in_order(short_demo: Demo, number: signal.Signals) -> None:  # noqa: ARG001
    """Exit 0 in a few seconds; the page and the metrics were where the output said."""
    with demo() as demonstration:
        address, dsn = introduced(demonstration)
        assert httpx.get(f"{address}/").status_code == 200
        until(lambda: 'pgwatch_sessions_up{server="demo"} 1.0' in httpx.get(f"{address}/metrics").text)
        with psycopg.connect(dsn) as visitor:
            assert visitor.execute("SELECT 1").fetchone() == (1,)
        sent = time.monotonic()
        demonstration.signal(number)
        assert demonstration.process.wait(timeout=20) == 0
        assert time.monotonic() - sent < 10
        assert demonstration.leftovers() == []
        assert demonstration.said("PostgreSQL, the service and their files are gone")
        assert demonstration.said("Traceback|error") == []


def introduced(demonstration: Demo) -> tuple[str, str]:
    """Return the addresses that the demonstration names: of its page, and of its PostgreSQL."""
    ((address, dsn),) = until(
        lambda: re.findall(
            r"the page +(http://\S+)/\n.*\n +PostgreSQL +(postgresql://\S+)\n", demonstration.log.read_text()
        ),
        within=30,
    )
    return address, dsn


def test_sigkill_leaves_nothing(short_demo: Demo) -> None:  # noqa: ARG001
    """PostgreSQL, the service and all folders go even if nobody is there to see to it."""
    with demo() as demonstration:
        introduced(demonstration)
        everybody = descendants(demonstration.process.pid)
        assert len(everybody) > 5
        assert demonstration.leftovers() != []
        demonstration.process.kill()
        until(lambda: not any(map(alive, everybody)))


def test_ctrl_c_during_the_start_is_quiet() -> None:
    """Somebody who changes their mind at once gets no traceback, and nothing stays."""
    with demo() as demonstration:
        until(lambda: demonstration.said("Starting PostgreSQL") and descendants(demonstration.process.pid))
        demonstration.signal(signal.SIGINT)
        assert demonstration.process.wait(timeout=20) == 128 + signal.SIGINT
        assert demonstration.said("Traceback|Error") == []


def test_once_shows_a_growing_leak_and_ends(short_demo: Demo) -> None:
    """In half a minute the sessions that are held grow from few to many; then all ends by itself with exit 0."""
    assert short_demo.process.wait(timeout=60) == 0
    held = [int(number) for number in short_demo.said(HELD)]
    assert len(held) >= 6
    assert held == sorted(held), "a leak does not shrink"
    assert held[-1] >= held[0] + 5
    assert short_demo.said(r"orders") != []
    assert short_demo.leftovers() == []
    assert short_demo.said("Traceback|error") == []
