"""Run containers for the length of a block, with the command from the documentation."""

import contextlib
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from pgwatch_sessions.demo.child_process import ChildProcess, child_process
from tests.deploy.image.building import PROJECT
from tests.deploy.image.machine import Machine
from tests.support.daemons import Scrape, logged
from tests.support.waiting import until

#: Added to the documented options: in a read-only container, podman mounts tmpfs folders by default; Docker does not.
AS_DOCKER = ("--read-only-tmpfs=false",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A running container."""

    machine: Machine
    name: str
    process: ChildProcess
    log: Path
    #: time.monotonic() at the start.
    started: float

    def address(self) -> str:
        """Wait until the daemon listens, and return the address that it logs."""

        def found() -> str:
            assert self.process.poll() is None, self.log.read_text()
            return next((event["address"] for event in logged(self.log) if event["event"] == "started"), "")

        return until(found, within=20)

    def first_scrape(self) -> tuple[Scrape, float]:
        """Return the first scrape after a successful poll, and the seconds since the start."""
        address = self.address()

        def scraped() -> Scrape | None:
            text = httpx.get(f"{address}/metrics", timeout=5).raise_for_status().text
            scrape = Scrape(families=tuple(text_string_to_metric_families(text)))
            return scrape if scrape.value("up") == 1 else None

        scrape = until(scraped, within=20)
        assert scrape is not None
        return scrape, time.monotonic() - self.started

    def health(self) -> tuple[int, str]:
        """Run the health check as an orchestrator does, and return podman's exit code and output."""
        done = self.machine.run_unchecked(*self.machine.podman("healthcheck", "run", self.name))
        return done.returncode, done.stdout + done.stderr

    def signal(self, name: str) -> None:
        """Send a signal to the first process in the container."""
        self.machine.run(*self.machine.podman("kill", f"--signal={name}", self.name))

    def end(self) -> tuple[int, float]:
        """Send SIGTERM, and return the exit code and the seconds until the container ended."""
        sent = time.monotonic()
        os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(timeout=20), time.monotonic() - sent


_DOCUMENTATION = PROJECT / "docs/container.md"


def documented_variables() -> dict[str, str]:
    """Return the variables that docs/container.md sets before `docker run`."""
    [words] = re.findall(r"^\$ export (.*=.*)$", _DOCUMENTATION.read_text(), re.MULTILINE)
    return dict(word.split("=") for word in shlex.split(words))


def documented_options() -> list[str]:
    """Return the options of `docker run` in docs/container.md."""
    [command] = re.findall(r"^\$ docker run ((?:.*\\\n)*.*)\n```", _DOCUMENTATION.read_text(), re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[-1] == "pgwatch-sessions"
    return words[:-1]


@contextlib.contextmanager
def running(
    machine: Machine,
    image: str,
    folder: Path,
    *options: str,
    env: Mapping[str, str],
    name: str = "pgwatch-sessions",
    words: Sequence[str] = (),
) -> Iterator[Container]:
    """Run an image for the length of a block. The variables are set for podman, not for the container."""
    log = folder / "log"
    log.touch()
    command = machine.command(*machine.podman_run("--rm", "--replace", *AS_DOCKER, *options, image, *words))
    started = time.monotonic()
    with child_process(command, env=machine.environment(env), log=log, patience=20) as process:
        yield Container(machine=machine, name=name, process=process, log=log, started=started)


def run_once(machine: Machine, image: str, *options: str, words: Sequence[str] = ()) -> tuple[int, str]:
    """Run a hardened container to its end, and return its exit code and all its output."""
    hardened = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", *AS_DOCKER)
    done = machine.run_unchecked(*machine.podman_run("--rm", *hardened, *options, image, *words))
    return done.returncode, done.stdout + done.stderr
