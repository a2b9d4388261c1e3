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
from tests.support.leftovers import alive, processes_of
from tests.support.programs import PROGRAM, environment
from tests.support.waiting import until


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


def test_the_statement_it_shows_is_about_one_leaked_session(short_demo: Demo) -> None:  # noqa: ARG001
    """What a person can paste concerns exactly one session, a leaked one; Ctrl-C then ends this act too."""
    with demo("--once") as demonstration:
        _, dsn = introduced(demonstration)
        where = until(lambda: demonstration.said(r"pg_terminate_backend\(pid\) FROM (.*\n.*);\n"), within=40)[0]
        with psycopg.connect(dsn) as visitor:
            assert visitor.execute(f"SELECT application_name, state FROM {where}").fetchall() == [
                ("orders-api", "idle in transaction")
            ]
        demonstration.signal(signal.SIGINT)
        assert demonstration.process.wait(timeout=20) == 0
        assert demonstration.said("Traceback|error") == []


def test_once_tells_the_whole_story(short_demo: Demo) -> None:
    """The leak is found while there are connections left, with all its particulars, and is over after the fix."""
    assert short_demo.process.wait(timeout=60) == 0
    text = re.sub(r"\n {10}", " ", short_demo.log.read_text())  # as before lines were broken
    story = [
        r"\n1\. Healthy\n",
        r"\n2\. Leaking\n",
        r"CRITICAL: orders-api leaks at /orders: \d+ sessions idle in transaction since [\d:]{8}, \d+ a minute, role",
        r"diagnosis of orders-api: leaking \(\d+ held at /orders\)",
        r"the first request is refused \(503\)",
        r"\n3\. Fixed\n",
        r"diagnosis of orders-api: ok, was leaking",
        r"CLOSED: orders-api leaks no more at /orders",
        r"\n +healthy +leaking +fixed\n",
        r"PostgreSQL, the service and their files are gone",
    ]
    found = [re.search(pattern, text) for pattern in story]
    assert [pattern for pattern, match in zip(story, found, strict=True) if match is None] == []
    places = [match.start() for match in found if match]
    assert places == sorted(places)
    assert short_demo.leftovers() == []
    assert short_demo.said("Traceback|error") == []


def test_the_leak_is_named_with_its_rate(short_demo: Demo) -> None:
    """One connection is lost every 0.8 s: 75 a minute, to a fifth."""
    short_demo.process.wait(timeout=60)
    rates = [int(rate) for rate in short_demo.said(r"leak at /orders: \d+ sessions, (\d+) a minute")]
    assert rates
    assert all(60 <= rate <= 90 for rate in rates)


def table_rows(demonstration: Demo) -> dict[str, list[float]]:
    """Return the numbers of each row of the table; times are milliseconds."""
    _, _, table = demonstration.log.read_text().partition("-" * 70)
    rows = re.findall(r"^ *(\S.*?)" + r"  +([\d.]+)(?: ms)?" * 3 + "$", table, re.MULTILINE)
    return {label: [float(number) for number in numbers] for label, *numbers in rows}


def test_the_table_compares_what_was_measured(short_demo: Demo) -> None:
    """With the leak connections are lost and requests refused; before and after none are."""
    short_demo.process.wait(timeout=60)
    rows = table_rows(short_demo)
    healthy, leaking, fixed = ({label: row[column] for label, row in rows.items()} for column in range(3))
    for act in (healthy, fixed):
        assert act["leaked sessions, found by the daemon"] == 0
        assert act["pool time-outs"] == 0
        assert act["refused for want of a connection (503)"] == 0
        assert act["requests answered"] > 0
    assert leaking["leaked sessions, found by the daemon"] > 0
    assert leaking["connections in use, out of the pool"] == 12
    assert leaking["pool time-outs"] > 0
    assert leaking["p95 wait for a connection"] >= 1000
    assert fixed["p95 wait for a connection"] < 100
    assert fixed["failed on the broken order (500)"] > 0, "the same requests still come"


def test_its_lines_fit(short_demo: Demo) -> None:
    """No line is wider than 100 columns, and none is coloured where nobody looks at a terminal."""
    short_demo.process.wait(timeout=60)
    assert short_demo.said(r".{101,}") == []
    assert short_demo.said("\x1b") == []
