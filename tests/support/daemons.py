"""`pgwatch-sessions run` as a child process: its settings, what it serves, what it logs, and its end."""

import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pgwatch_sessions.demo.child_process import ChildProcess, child_process
from pgwatch_sessions.postgres.connecting import APPLICATION_NAME
from tests.support.programs import PROGRAM, environment
from tests.support.proxy import Proxy
from tests.support.waiting import until

PREFIX = "pgwatch_sessions_"
SessionCounts = Mapping[tuple[str, str, str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """What /metrics served at one moment. Names are given without their prefix."""

    families: tuple[Metric, ...]

    def all(self, name: str, /, **labels: str) -> list[float]:
        """Return the values of all samples that have these labels among theirs."""
        return [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, /, **labels: str) -> float | None:
        """Return the value of the one sample there is; None when there is none."""
        found = self.all(name, **labels)
        assert len(found) <= 1, f"{len(found)} samples of {name}"
        return found[0] if found else None

    def polls(self, **labels: str) -> float:
        """Return how many polls have ended."""
        return self.value("poll_duration_seconds_count", **labels) or 0

    def silence(self, **labels: str) -> float:
        """Return how many seconds ago a poll last succeeded."""
        return time.time() - (self.value("last_poll_timestamp_seconds", **labels) or 0)

    def connections(self, **labels: str) -> SessionCounts:
        """Return the sessions by database, user, application and state, zeros left out."""

        def key(of: Mapping[str, str]) -> tuple[str, str, str, str]:
            return of["database"], of["user"], of["application"], of["state"]

        return {
            key(sample.labels): sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"{PREFIX}connections" and labels.items() <= sample.labels.items() and sample.value
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A daemon at work."""

    process: ChildProcess
    #: Everything it wrote, to standard output and standard error.
    log: Path
    #: http://host:port
    address: str

    def get(self, path: str) -> httpx.Response:
        """Ask for one of its addresses."""
        return httpx.get(self.address + path, timeout=5)

    def scrape(self) -> Scrape:
        """Return the metrics now."""
        answer = self.get("/metrics").raise_for_status()
        return Scrape(families=tuple(text_string_to_metric_families(answer.text)))

    def scrape_when(self, condition: Callable[[Scrape], bool], *, within: float = 15.0) -> Scrape:
        """Return the first scrape of which the condition holds."""
        scrapes: list[Scrape] = []

        def holds() -> bool:
            scrapes[:] = [self.scrape()]
            return condition(scrapes[0])

        until(holds, within=within)
        return scrapes[0]

    def scrape_when_up(self) -> Scrape:
        """Return the first scrape after a poll that succeeded."""
        return self.scrape_when(lambda scrape: scrape.value("up") == 1)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what was logged under this name."""
        return [event for event in logged(self.log) if event["event"] == name]

    def end_by(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code; TimeoutExpired if it has not ended after 10 s."""
        os.kill(self.process.pid, number)
        return self.process.wait(timeout=10)


@contextlib.contextmanager
def daemon(
    *arguments: str,
    dsn: str | None = None,
    interval: str = "100ms",
    timeout: str = "5s",
    variables: Mapping[str, str] | None = None,
    libraries_log: bool = False,
) -> Iterator[Daemon]:
    """Run the daemon on a port of its own until the block ends, or the block has ended it.

    `variables` are environment variables that are not settings.
    Leaving in order asserts that it did too: exit 0, and unless `libraries_log`, in its log no traceback and no word of
    a library's.
    """
    settings = {"LISTEN": "127.0.0.1:0", "INTERVAL": interval, "TIMEOUT": timeout}
    settings |= {"DSN": dsn} if dsn else {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        log.touch()
        command = (*PROGRAM, "run", *arguments)
        with child_process(command, env={**environment(**settings), **(variables or {})}, log=log) as process:
            started = until(lambda: _started(process, log), within=20)
            yield Daemon(process=process, log=log, address=started["address"])
        assert process.poll() == 0, log.read_text()
        if not libraries_log:
            assert "Traceback" not in log.read_text(), log.read_text()
            assert [event for event in logged(log) if "logger" in event] == []


def _started(process: ChildProcess, log: Path) -> dict[str, Any]:
    assert process.poll() is None, log.read_text()
    return next((event for event in logged(log) if event["event"] == "started"), {})


def logged(log: Path) -> list[dict[str, Any]]:
    """Return the events of the lines that are complete; a traceback is none."""
    lines = log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def through(proxy: Proxy) -> str:
    """Return the DSN of the server behind the proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"


def own_sessions(dsn: str) -> int:
    """Count our sessions on the server, as another session sees them."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query, [APPLICATION_NAME]).fetchone()
    assert row is not None
    return int(row[0])
