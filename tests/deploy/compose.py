"""Read deploy/compose/compose.yaml, and run its services as processes on this machine, without containers.

Commands, environments, files and secrets are those of compose.yaml. Only paths, ports and host names are replaced,
because they exist only inside containers.
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
#: `${NAME:-default}`, the only form of variables in compose.yaml.
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")

Service = Mapping[str, Any]


def load_compose(**variables: str) -> dict[str, Any]:
    """Read compose.yaml as Compose would with these environment variables."""
    text = _VARIABLE.sub(lambda match: variables.get(match[1]) or match[2], FILE.read_text())
    values: dict[str, Any] = json.loads(json.dumps(yaml.safe_load(text)))  # turns aliases into copies
    return values


def load_services(**variables: str) -> dict[str, Service]:
    """Return the services by name."""
    found: dict[str, Service] = load_compose(**variables)["services"]
    return found


def mounted_files(service: Service) -> dict[str, Path]:
    """Return the file or folder in the repository for each mounted path in the container."""
    parts = [mount.split(":") for mount in service.get("volumes", [])]
    assert all(mode == "ro" for _, _, mode in parts)
    return {target: (FOLDER / source).resolve() for source, target, _ in parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRun:
    """Runs services on this machine: a folder with their secrets, and replacements for names inside containers."""

    folder: Path
    #: Texts in compose.yaml, and their replacements.
    replacements: dict[str, str] = field(
        default_factory=lambda: {"0.0.0.0": "127.0.0.1", "--port=8080": "--port=0", "--port=9095": "--port=0"}  # noqa: S104 - the text to replace
    )

    def make_secrets(self) -> dict[str, str]:
        """Write a password for each secret, with characters special in URIs and in SQL; return them by name."""
        passwords = {name: f"it's @ 100%/{name}" for name in load_compose()["secrets"]}
        for name, password in passwords.items():
            (self.folder / name).write_text(f"{password}\n")
        return passwords

    def localize(self, text: str, service: Service) -> str:
        """Replace paths and names inside the service's container by those of this machine."""
        replaced = {target: str(source) for target, source in mounted_files(service).items()}
        replaced |= {SECRETS: f"{self.folder}/", "/tmp/": f"{self.folder}/", **self.replacements}  # noqa: S108 - as above
        # One pass, so that replacements are not replaced again.
        longest_first = sorted(replaced, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), lambda match: replaced[match[0]], text)

    def environment(self, service: Service) -> dict[str, str]:
        """Return the service's environment. Variables of this process that would affect it are left out."""
        own = {name: self.localize(value, service) for name, value in service.get("environment", {}).items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "ORDERS_"))}
        return inherited | own

    def command(self, words: Sequence[str], service: Service) -> list[str]:
        """Return a command line of the service, translated for this machine."""
        programs: dict[str, tuple[str, ...]] = {"python": (sys.executable,), "pgwatch-sessions": PROGRAM}
        first, *rest = [self.localize(word, service) for word in words]
        return [*programs[first], *rest]

    def is_healthy(self, service: Service) -> bool:
        """Run the service's health check, and return whether it passes."""
        kind, *words = service["healthcheck"]["test"]
        assert kind == "CMD"
        checked = subprocess.run(
            self.command(words, service), env=self.environment(service), capture_output=True, timeout=20, check=False
        )
        return checked.returncode == 0

    @contextlib.contextmanager
    def run_script(self, service: Service, name: str) -> Iterator[Path]:
        """Run the service's Python script, and yield its log."""
        log = self.folder / f"{name}.log"
        log.write_text("")
        command = self.command((*service["entrypoint"], *service["command"]), service)
        with child_process(command, env=self.environment(service), log=log) as process:
            yield log
            assert process.poll() is None, log.read_text()

    @contextlib.contextmanager
    def run_server(self, service: Service, name: str) -> Iterator[tuple[str, Path]]:
        """Run a script that prints its address first, and yield the address and the log."""
        with self.run_script(service, name) as log:
            yield until(lambda: _first_line(log, "http://"), within=20), log

    @contextlib.contextmanager
    def run_daemon(self, service: Service) -> Iterator[httpx.Client]:
        """Run the daemon, and yield an HTTP client for it."""
        log = self.folder / "daemon.log"
        log.touch()
        overrides = {"PGWATCH_SESSIONS_LISTEN": "127.0.0.1:0", "PGWATCH_SESSIONS_LOG_FORMAT": "json"}
        command = self.command(("pgwatch-sessions", *service["command"]), service)
        with child_process(command, env=self.environment(service) | overrides, log=log) as process:
            address = until(lambda: _started(process, log), within=20)
            self.replacements[service["environment"]["PGWATCH_SESSIONS_LISTEN"]] = address.removeprefix("http://")
            with httpx.Client(base_url=address, timeout=5) as http:
                yield http
        assert process.poll() == 0, log.read_text()


def initialise(host_run: HostRun, service: Service, server: OwnPostgres) -> subprocess.CompletedProcess[str]:
    """Run init.sql as the image's entrypoint does for a new data folder."""
    [(_, source)] = [
        each for each in mounted_files(service).items() if each[0].startswith("/docker-entrypoint-initdb.d/")
    ]
    script = host_run.folder / source.name
    script.write_text(host_run.localize(source.read_text(), service))
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
    """Return the settings in the server's command: `-c name=value`."""
    return dict(word.split("=") for word in service["command"] if "=" in word)


def _first_line(log: Path, start: str) -> str:
    line, end, _ = log.read_text().partition("\n")
    return line if end and line.startswith(start) else ""


def _started(process: ChildProcess, log: Path) -> str:
    assert process.poll() is None, log.read_text()
    return next((str(event["address"]) for event in logged(log) if event["event"] == "started"), "")
