"""`pgwatch-sessions demo` as a process: it prints the walkthrough, ends in order, and leaves nothing behind."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from pgwatch_sessions.demo.supervisor import descendants
from tests.support.leftovers import alive, processes_of
from tests.support.programs import PROGRAM, environment
from tests.support.waiting import until


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """A running demo."""

    process: subprocess.Popen[bytes]
    #: All files of the demo are here.
    folder: Path
    log: Path

    def said(self, pattern: str) -> list[str]:
        """Return all matches in the output so far."""
        return re.findall(pattern, self.log.read_text())

    def signal(self, number: signal.Signals) -> None:
        """Send the signal to its process group, as a terminal does with SIGINT."""
        os.killpg(self.process.pid, number)

    def leftovers(self) -> list[object]:
        """Return the processes and files of the demo."""
        return [*processes_of(self.folder), *self.folder.iterdir()]


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[Demo]:
    """Run the demo; when the block ends, it must end and leave nothing behind."""
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
            running = Demo(process=process, folder=folder, log=log)
            try:
                yield running
                process.wait(timeout=60)
            finally:
                process.kill()
        until(lambda: not running.leftovers())


@pytest.fixture(scope="module")
def short_demo() -> Iterator[Demo]:
    """Return a demo that ends by itself after half a minute, while other tests run."""
    with demo("--once") as running:
        yield running


@pytest.mark.usefixtures("short_demo")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_ends_the_demo_in_order(number: signal.Signals) -> None:
    """It exits with 0 within seconds; until then, page, metrics and PostgreSQL answer at the printed addresses."""
    with demo() as running:
        address, dsn = introduced(running)
        assert httpx.get(f"{address}/").status_code == 200
        until(lambda: 'pgwatch_sessions_up{server="demo"} 1.0' in httpx.get(f"{address}/metrics").text)
        with psycopg.connect(dsn) as visitor:
            assert visitor.execute("SELECT 1").fetchone() == (1,)
        running.signal(number)
        assert running.process.wait(timeout=20) == 0
        assert running.leftovers() == []
        assert running.said("PostgreSQL, the service and their files are removed")
        assert running.said("Traceback|error") == []


def introduced(running: Demo) -> tuple[str, str]:
    """Return the printed addresses of the page and of PostgreSQL."""
    ((address, dsn),) = until(
        lambda: re.findall(r"the page +(http://\S+)/\n.*\n +PostgreSQL +(postgresql://\S+)\n", running.log.read_text()),
        within=30,
    )
    return address, dsn


@pytest.mark.usefixtures("short_demo")
def test_sigkill_leaves_nothing() -> None:
    """PostgreSQL, the service and all folders are removed even if the demo is killed."""
    with demo() as running:
        introduced(running)
        everybody = descendants(running.process.pid)
        assert len(everybody) > 5
        assert running.leftovers() != []
        running.process.kill()
        until(lambda: not any(map(alive, everybody)))


def test_ctrl_c_while_starting_is_quiet() -> None:
    """Ctrl-C while PostgreSQL starts prints no traceback and leaves nothing behind."""
    with demo() as running:
        until(lambda: running.said("Starting PostgreSQL") and descendants(running.process.pid))
        running.signal(signal.SIGINT)
        assert running.process.wait(timeout=20) == 128 + signal.SIGINT
        assert running.said("Traceback|Error") == []


@pytest.mark.usefixtures("short_demo")
def test_printed_statement_terminates_the_leaked_sessions() -> None:
    """The statement that it prints selects leaked sessions only. Ctrl-C ends the second act too."""
    with demo("--once") as running:
        _, dsn = introduced(running)
        where = until(lambda: running.said(r"pg_terminate_backend\(pid\)\n +FROM ([^;]+);\n"), within=40)[0]
        with psycopg.connect(dsn) as visitor:
            assert set(visitor.execute(f"SELECT application_name, state FROM {where}").fetchall()) == {
                ("orders-api", "idle in transaction")
            }
        running.signal(signal.SIGINT)
        assert running.process.wait(timeout=20) == 0
        assert running.said("Traceback|error") == []


def unwrapped(running: Demo) -> str:
    """Return the output as it was before its lines were broken."""
    return re.sub(r"\n {10}(?: {12})?", " ", running.log.read_text())


def test_once_plays_all_three_acts(short_demo: Demo) -> None:
    """The daemon detects the leak before the pool is exhausted, with site, rate and forecast; the fix closes it."""
    assert short_demo.process.wait(timeout=60) == 0
    text = unwrapped(short_demo)
    acts = [
        r"\n1\. Healthy\n",
        r"\n2\. Leaking\n",
        (
            r"critical    orders-api .*: \d+ sessions idle in transaction at /orders "
            r"\(pgwatch_sessions/demo/service\.py:\d+ in orders_leaking\), .* per minute, "
            r"out of connections in \d+ s"
        ),
        r"the first request is refused \(503\)",
        r"\n3\. Fixed\n",
        r"recovering  orders-api \(shop, orders\): all 12 sessions at /orders have ended or are used again",
        r"closed      orders-api \(shop, orders\): all 12 sessions at /orders",
        r"\n +healthy +leaking +fixed\n",
        r"PostgreSQL, the service and their files are removed",
    ]
    found = [re.search(pattern, text) for pattern in acts]
    assert [pattern for pattern, match in zip(acts, found, strict=True) if match is None] == []
    places = [match.start() for match in found if match]
    assert places == sorted(places)
    assert short_demo.leftovers() == []
    assert short_demo.said("Traceback|error") == []


def test_rate_of_the_leak(short_demo: Demo) -> None:
    """One connection leaks every 0.8 s, which is 75 per minute; the daemon says so within a fifth."""
    short_demo.process.wait(timeout=60)
    rates = [float(rate) for rate in re.findall(r"([\d.]+) more per minute", unwrapped(short_demo))]
    assert rates
    assert all(60 <= rate <= 90 for rate in rates)


def table_rows(running: Demo) -> dict[str, list[float]]:
    """Return the numbers of each row of the table."""
    _, _, table = running.log.read_text().partition("leaking  fixed\n")
    rows = re.findall(r"^ *(\S.*?)" + r"  +([\d.]+)" * 3 + "$", table, re.MULTILINE)
    return {label: [float(number) for number in numbers] for label, *numbers in rows}


def test_table_compares_the_acts(short_demo: Demo) -> None:
    """With the leak, connections are lost and requests refused; before it and after the fix, none are."""
    short_demo.process.wait(timeout=60)
    rows = table_rows(short_demo)
    healthy, leaking, fixed = ({label: row[column] for label, row in rows.items()} for column in range(3))
    for act in (healthy, fixed):
        assert act["leaked sessions, as found by the daemon"] == 0
        assert act["pool timeouts"] == 0
        assert act["refused, no free connection (503)"] == 0
        assert act["requests answered (200)"] > 0
    assert leaking["leaked sessions, as found by the daemon"] > 0
    assert leaking["connections checked out of the pool"] == 12
    assert leaking["pool timeouts"] > 0
    assert leaking["wait for a connection, 95th percentile, ms"] >= 1000
    assert fixed["wait for a connection, 95th percentile, ms"] < 100
    assert fixed["failed on the invalid order (500)"] > 0, "the same requests still come"


def test_lines_fit(short_demo: Demo) -> None:
    """No line is wider than 100 columns, and there is no colour if the output is not a terminal."""
    short_demo.process.wait(timeout=60)
    assert short_demo.said(r".{101,}") == []
    assert short_demo.said("\x1b") == []
