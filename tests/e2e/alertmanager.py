"""A real Alertmanager, and a web server that receives what it sends."""

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

#: Debian has the daemon under a name of its own.
PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")

NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One alert of a message that arrived."""

    #: When, by this machine's clock.
    at: float
    #: The path it was sent to, which is the receiver.
    receiver: str
    #: `firing` or `resolved`.
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Pages:
    """What has arrived so far."""

    def __init__(self) -> None:
        self._arrived: list[Page] = []

    def receive(self, receiver: str, message: Mapping[str, Any]) -> None:
        """Take a message as Alertmanager posts it."""
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
        """Return those that have these labels among theirs."""
        return [
            page
            for page in self._arrived
            if page.status == status and page.at >= since and labels.items() <= page.labels.items()
        ]

    def first(self, status: str, labels: Mapping[str, str], *, since: float = 0.0, within: float = 20.0) -> Page:
        """Wait for one that has these labels."""
        return until(lambda: self.all(status, labels, since=since), within=within)[0]


@contextlib.contextmanager
def receiving(pages: Pages) -> Iterator[str]:
    """Serve the webhook until the block ends; yield its address."""

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
    """Run Alertmanager until the block ends; yield a client at its address."""
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
