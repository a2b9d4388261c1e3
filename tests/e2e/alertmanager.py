"""Run a real Alertmanager, and a web server that receives its notifications."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from pgwatch_sessions.demo.child_process import child_process
from tests.e2e.prometheus import ready
from tests.support.answering import answering
from tests.support.ports import free_port
from tests.support.waiting import until

#: Debian calls the program prometheus-alertmanager.
PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")

NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One alert in a received notification."""

    #: When it arrived, by this machine's clock.
    at: float
    #: The receiver; the path of the webhook is its name.
    receiver: str
    #: `firing` or `resolved`.
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Pages:
    """All alerts received so far."""

    def __init__(self) -> None:
        self._arrived: list[Page] = []

    def receive(self, receiver: str, message: Mapping[str, Any]) -> None:
        """Store the alerts of a notification in Alertmanager's format."""
        self._arrived += [
            Page(
                at=time.time(),
                receiver=receiver,
                status=each["status"],
                labels=each["labels"],
                annotations=each["annotations"],
            )
            for each in message["alerts"]
        ]

    def all(self, status: str, labels: Mapping[str, str] = NO_LABELS, *, since: float = 0.0) -> list[Page]:
        """Return the received alerts that have these labels, perhaps with others."""
        return [
            page
            for page in self._arrived
            if page.status == status and page.at >= since and labels.items() <= page.labels.items()
        ]

    def first(self, status: str, labels: Mapping[str, str], *, since: float = 0.0, within: float = 20.0) -> Page:
        """Wait for an alert that has these labels."""
        return until(lambda: self.all(status, labels, since=since), within=within)[0]


@contextlib.contextmanager
def webhook_server(pages: Pages) -> Iterator[str]:
    """Serve the webhook, and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            pages.receive(self.path.strip("/"), json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as address:
        yield f"http://{address}/"


@contextlib.contextmanager
def running_alertmanager(configuration: Mapping[str, Any]) -> Iterator[httpx.Client]:
    """Run Alertmanager, and yield an HTTP client for it."""
    assert PROGRAM
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "alertmanager.yml")
        file.write_text(json.dumps(configuration))  # JSON is YAML
        address, log = f"127.0.0.1:{free_port()}", Path(folder, "log")
        command = (
            PROGRAM,
            f"--config.file={file}",
            f"--storage.path={folder}/data",
            "--cluster.listen-address=",
            f"--web.listen-address={address}",
            "--log.level=warn",
        )
        with (
            child_process(command, cwd=Path(folder), log=log) as process,
            httpx.Client(base_url=f"http://{address}", timeout=10) as http,
        ):
            until(lambda: ready(process, log, http), within=20)
            yield http
