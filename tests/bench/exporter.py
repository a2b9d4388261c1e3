"""postgres_exporter for comparison: Debian's prometheus-postgres-exporter, if it is installed."""

import contextlib
import http.client
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pgwatch_sessions.demo.child_process import child_process, temporary_folder
from pgwatch_sessions.demo.postgres import ENVIRONMENT
from pgwatch_sessions.web.http_server import bind, url
from tests.support.waiting import until

_PROGRAM = "prometheus-postgres-exporter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A running exporter."""

    pid: int
    address: str

    def scrape(self) -> bytes:
        """Return its metrics. Each scrape queries the server."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return connection.getresponse().read()


@contextlib.contextmanager
def exporter(dsn: str) -> Iterator[Exporter | None]:
    """Run an exporter with default options, and yield it once it has connected; None if it is not installed."""
    program = shutil.which(_PROGRAM)
    if program is None:
        yield None
        return
    address = free_address()
    command = [program, f"--web.listen-address={address}"]
    environment = {**ENVIRONMENT, "DATA_SOURCE_NAME": dsn}
    with temporary_folder() as folder, child_process(command, env=environment, log=folder.path / "log") as process:
        running = Exporter(pid=process.pid, address=address)
        until(lambda: _up(running))
        yield running


def free_address() -> str:
    """Return an address on which nothing listens now."""
    with bind("127.0.0.1", 0) as listener:
        return urlsplit(url(listener)).netloc


def _up(running: Exporter) -> bool:
    try:
        return b"\npg_up 1\n" in running.scrape()
    except OSError:
        return False
