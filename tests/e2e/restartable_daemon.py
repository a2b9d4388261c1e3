"""Run the daemon as a process that can be killed and restarted at the same address."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from pgwatch_sessions.demo.child_process import ChildProcess, child_process
from tests.e2e.scaled import DAEMON
from tests.support.daemons import logged
from tests.support.ports import free_port
from tests.support.programs import PROGRAM, environment
from tests.support.waiting import until


class RestartableDaemon:
    """A daemon with a fixed port and log file; its process may be replaced."""

    def __init__(self, configuration: Path, log: Path, *options: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.log = log
        self.configuration = configuration
        self._command = (*PROGRAM, "run", "--config", str(configuration), "--listen", self.address, *options)
        self._run = contextlib.ExitStack()
        self._process: ChildProcess | None = None

    def start(self) -> None:
        """Start the daemon, and wait until it listens."""
        before = len(self.events("started")) if self.log.exists() else 0
        process = self._run.enter_context(child_process(self._command, env=environment(**DAEMON), log=self.log))
        self._process = process

        def started() -> bool:
            assert process.poll() is None, self.log.read_text()
            return len(self.events("started")) > before

        until(started, within=20)

    def kill(self) -> None:
        """Kill the process, so that it cannot shut down in order."""
        assert self._process
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        self._run.close()

    def reload(self) -> None:
        """Tell the process to read its configuration again."""
        assert self._process
        os.kill(self._process.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Stop the process in order. AssertionError if it fails, or if the log has a traceback."""
        self._run.close()
        assert self._process
        assert self._process.poll() == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    def abandon(self) -> None:
        """Stop the process if it still runs, without checks."""
        self._run.close()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the logged events of this name."""
        return [event for event in logged(self.log) if event["event"] == name]

    def leaks(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the open findings, as JSON, that have these values."""
        answer = httpx.get(f"http://{self.address}/api/v1/leaks", timeout=10).raise_for_status().json()
        return [leak for leak in answer["leaks"] if wanted.items() <= leak.items()]


@contextlib.contextmanager
def running_daemons(configuration: Path, folder: Path, count: int) -> Iterator[list[RestartableDaemon]]:
    """Run `count` daemons, of which the first has a `state_dir`.

    A daemon that is killed must be started again before the block ends.
    """
    daemons = [
        RestartableDaemon(
            configuration, folder / f"daemon-{number}.log", *(() if number else ("--state-dir", str(folder / "state")))
        )
        for number in range(count)
    ]
    try:
        for daemon in daemons:
            daemon.start()
        yield daemons
        for daemon in daemons:
            daemon.stop()
    finally:
        for daemon in daemons:
            daemon.abandon()
