"""A real Prometheus that scrapes every second, with a folder and a port of its own."""

import contextlib
import json
import math
import random
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from pgwatch_sessions.demo.kept import kept
from pgwatch_sessions.demo.postgres import PORTS
from tests.waiting import until

Answer = Sequence[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running server."""

    #: At its own address.
    http: httpx.Client

    def ask(self, query: str) -> Answer:
        """Return the labels and value of each series now; a series without a number (NaN) is none."""
        answer = self.http.post("/api/v1/query", data={"query": query}).json()
        assert answer["status"] == "success", answer
        assert answer["data"]["resultType"] == "vector", answer
        series = [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    def one(self, query: str) -> float | None:
        """Return the value of the one series there is; None when there is none."""
        answer = self.ask(query)
        assert len(answer) <= 1, answer
        return answer[0][1] if answer else None


@contextlib.contextmanager
def running_prometheus(program: str, addresses: Sequence[str]) -> Iterator[Prometheus]:
    """Run Prometheus on these daemons until the block ends."""
    targets = [urlsplit(address).netloc for address in addresses]
    configuration = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "pgwatch-sessions", "static_configs": [{"targets": targets}]}],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prometheus.yml")
        file.write_text(json.dumps(configuration))  # JSON is YAML
        port = _free_port()
        log = Path(folder, "log")
        command = (
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        )
        address = f"http://127.0.0.1:{port}"
        with kept(command, cwd=Path(folder), log=log) as process, httpx.Client(base_url=address, timeout=10) as http:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(httpx.HTTPError):
                    return http.get("/-/ready").is_success
                return False

            until(ready, within=20)
            yield Prometheus(http=http)


def _free_port() -> int:
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.choice(PORTS)))
            return int(probe.getsockname()[1])
