"""Run the daemon as a process that can be killed and restarted at the same address."""

import contextlib
import http.client
import os
import signal
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pgwatch_sessions.demo.child_process import ChildProcess, child_process
from tests.support.daemons import Scrape, logged
from tests.support.ports import free_port
from tests.support.programs import PROGRAM
from tests.support.waiting import until


class RestartableDaemon:
    """A daemon with a fixed port and log file; its process may be replaced."""

    def __init__(self, log: Path, *options: str, env: Mapping[str, str]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.log = log
        self._command = (*PROGRAM, "run", "--listen", self.address, *options)
        self._env = env
        self._run = contextlib.ExitStack()
        self._process: ChildProcess | None = None

    @property
    def pid(self) -> int:
        """The id of the process that was started last."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start the daemon, and wait until it listens."""
        before = len(self.events("started")) if self.log.exists() else 0
        process = self._run.enter_context(child_process(self._command, env=self._env, log=self.log))
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
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Stop the process in order. AssertionError if it fails, or if the log has a traceback."""
        self._run.close()
        assert self._process
        assert self._process.poll() == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    def abandon(self) -> None:
        """Stop the process if it still runs, without checks."""
        self._run.close()

    def scrape(self) -> Scrape:
        """Return the metrics now; OSError or HTTPException if the daemon does not serve them within a second."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=1)) as connection:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise http.client.HTTPException(answer.reason)
            return Scrape(families=tuple(text_string_to_metric_families(answer.read().decode())))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the logged events of this name."""
        return [event for event in self.all_events() if event["event"] == name]

    def all_events(self) -> list[dict[str, Any]]:
        """Return everything that the processes have logged, one after the other."""
        return logged(self.log)

    def leaks(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the open findings, as JSON, that have these values."""
        answer = httpx.get(f"http://{self.address}/api/v1/leaks", timeout=10).raise_for_status().json()
        return [leak for leak in answer["leaks"] if wanted.items() <= leak.items()]
