"""deploy/compose as values, and its services as processes of this machine.

Played so, commands, environments, files and secrets are those of compose.yaml. Changed are only paths, ports and
the names of hosts, which containers have to themselves.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from pgwatch_sessions.demo.child_process import ChildProcess, child_process
from tests.support.daemons import logged
from tests.support.programs import PROGRAM
from tests.support.servers import OwnPostgres
from tests.support.waiting import until

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
SECRETS = "/run/secrets/"
#: `${NAME:-default}`, the one form that compose.yaml uses.
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")

Service = Mapping[str, Any]


def composed(**variables: str) -> dict[str, Any]:
    """Read compose.yaml as Compose does with these variables in its environment."""
    text = _VARIABLE.sub(lambda match: variables.get(match[1]) or match[2], FILE.read_text())
    values: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(text)))  # what aliases name is copied
    return values


def services(**variables: str) -> dict[str, Service]:
    """Return the services by name."""
    found: dict[str, Service] = composed(**variables)["services"]
    return found


def mounts(service: Service) -> dict[str, Path]:
    """Return the file or folder of ours behind each path in the container."""
    parts = [mount.split(":") for mount in service.get("volumes", [])]
    assert all(mode == "ro" for _, _, mode in parts)
    return {target: (FOLDER / source).resolve() for source, target, _ in parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A folder with the secrets, and what takes the place of the names that only containers know."""

    folder: Path
    #: By the text in compose.yaml.
    stand_ins: dict[str, str] = field(
        default_factory=lambda: {"0.0.0.0": "127.0.0.1", "--port=8080": "--port=0", "--port=9095": "--port=0"}  # noqa: S104 - what is replaced
    )

    def make_secrets(self) -> dict[str, str]:
        """Write one password for each secret, with characters that bite in a URI and in SQL; return them by name."""
        passwords = {name: f"it's @ 100%/{name}" for name in composed()["secrets"]}
        for name, password in passwords.items():
            (self.folder / name).write_text(f"{password}\n")
        return passwords

    def here(self, text: str, service: Service) -> str:
        """Replace the paths and names of the service's container by those of this machine."""
        places = {target: str(source) for target, source in mounts(service).items()}
        places |= {SECRETS: f"{self.folder}/", "/tmp/": f"{self.folder}/", **self.stand_ins}  # noqa: S108 - as above
        # In one pass: what is put in is not looked at again.
        longest_first = sorted(places, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda found: places[found[0]], text)

    def environment(self, service: Service) -> dict[str, str]:
        """Return the service's environment, and nothing of ours that could take its place."""
        own = {name: self.here(value, service) for name, value in service.get("environment", {}).items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "ORDERS_"))}
        return inherited | own

    def command(self, words: Sequence[str], service: Service) -> list[str]:
        """Return a command line of the service's for this machine."""
        programs: dict[str, tuple[str, ...]] = {"python": (sys.executable,), "pgwatch-sessions": PROGRAM}
        first, *rest = [self.here(word, service) for word in words]
        return [*programs[first], *rest]

    def is_healthy(self, service: Service) -> bool:
        """Run the service's health check."""
        kind, *words = service["healthcheck"]["test"]
        assert kind == "CMD"
        checked = subprocess.run(
            self.command(words, service), env=self.environment(service), capture_output=True, timeout=20, check=False
        )
        return checked.returncode == 0

    @contextlib.contextmanager
    def running(self, service: Service, name: str) -> Iterator[Path]:
        """Run one of the Python scripts until the block ends; yield its log."""
        log = self.folder / f"{name}.log"
        log.write_text("")
        command = self.command((*service["entrypoint"], *service["command"]), service)
        with child_process(command, env=self.environment(service), log=log) as process:
            yield log
            assert process.poll() is None, log.read_text()

    @contextlib.contextmanager
    def listening(self, service: Service, name: str) -> Iterator[tuple[str, Path]]:
        """Run a script that says its address first; yield that, and its log."""
        with self.running(service, name) as log:
            yield until(lambda: _first_line(log, "http://"), within=20), log

    @contextlib.contextmanager
    def watching(self, service: Service) -> Iterator[httpx.Client]:
        """Run the daemon until the block ends; yield a client of it."""
        log = self.folder / "daemon.log"
        log.touch()
        ours = {"PGWATCH_SESSIONS_LISTEN": "127.0.0.1:0", "PGWATCH_SESSIONS_LOG_FORMAT": "json"}
        command = self.command(("pgwatch-sessions", *service["command"]), service)
        with child_process(command, env=self.environment(service) | ours, log=log) as process:
            address = until(lambda: _started(process, log), within=20)
            self.stand_ins[service["environment"]["PGWATCH_SESSIONS_LISTEN"]] = address.removeprefix("http://")
            with httpx.Client(base_url=address, timeout=5) as http:
                yield http
        assert process.poll() == 0, log.read_text()


def initialise(stage: Stage, service: Service, server: OwnPostgres) -> subprocess.CompletedProcess[str]:
    """Run the script for a new data folder as the image's entrypoint does."""
    [(_, source)] = [each for each in mounts(service).items() if each[0].startswith("/docker-entrypoint-initdb.d/")]
    script = stage.folder / source.name
    script.write_text(stage.here(source.read_text(), service))
    psql = server.server.cluster.bin_folder / "psql"
    command: list[str | Path] = [
        psql,
        "-v",
        "ON_ERROR_STOP=1",
        "--no-password",
        "--no-psqlrc",
        "-f",
        script,
        server.dsn(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def server_settings(service: Service) -> dict[str, str]:
    """Return what the command sets: `-c name=value`."""
    return dict(word.split("=") for word in service["command"] if "=" in word)


def _first_line(log: Path, start: str) -> str:
    line, end, _ = log.read_text().partition("\n")
    return line if end and line.startswith(start) else ""


def _started(process: ChildProcess, log: Path) -> str:
    assert process.poll() is None, log.read_text()
    return next((str(event["address"]) for event in logged(log) if event["event"] == "started"), "")
