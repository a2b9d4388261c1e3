"""Run a real Prometheus with its own folder and port, and query it."""

import contextlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pgwatch_sessions.demo.child_process import ChildProcess, child_process
from tests.support.ports import free_port
from tests.support.waiting import until

PROGRAM = shutil.which("prometheus")

Answer = Sequence[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running Prometheus."""

    #: A client for its address.
    http: httpx.Client

    def query(self, query: str) -> Answer:
        """Return the labels and the current value of each series. Series with the value NaN are left out."""
        result = self._get("/api/v1/query", "vector", query=query)
        series = [(each["metric"], float(each["value"][1])) for each in result]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    def value(self, query: str) -> float | None:
        """Return the value of the only series; None without series."""
        answer = self.query(query)
        assert len(answer) <= 1, answer
        return answer[0][1] if answer else None

    def count_series(self, query: str, *, start: float, end: float, step: float) -> Mapping[float, int]:
        """Return the number of series at each step from start to end. Steps without series are left out."""
        result = self._get("/api/v1/query_range", "matrix", query=query, start=start, end=end, step=step)
        counts: dict[float, int] = {}
        for series in result:
            for at, value in series["values"]:
                if value != "NaN":
                    counts[float(at)] = counts.get(float(at), 0) + 1
        return counts

    def groups(self) -> list[dict[str, Any]]:
        """Return the rule groups with their rules and the duration of their last evaluation."""
        data = self.http.get("/api/v1/rules").raise_for_status().json()["data"]
        groups: list[dict[str, Any]] = data["groups"]
        return groups

    def _get(self, path: str, kind: str, **parameters: str | float) -> list[dict[str, Any]]:
        answer = self.http.post(path, data=parameters).json()
        assert answer["status"] == "success", (answer, parameters)
        assert answer["data"]["resultType"] == kind, answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


@contextlib.contextmanager
def running_prometheus(configuration: Mapping[str, Any], *flags: str) -> Iterator[Prometheus]:
    """Run Prometheus for the length of a block."""
    assert PROGRAM
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prometheus.yml")
        file.write_text(json.dumps(configuration))  # JSON is YAML
        port, log = free_port(), Path(folder, "log")
        command = (
            PROGRAM,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            *flags,
        )
        address = f"http://127.0.0.1:{port}"
        with (
            child_process(command, cwd=Path(folder), log=log) as process,
            httpx.Client(base_url=address, timeout=30) as http,
        ):
            until(lambda: ready(process, log, http), within=20)
            yield Prometheus(http=http)


def ready(process: ChildProcess, log: Path, http: httpx.Client) -> bool:
    """Return whether Prometheus or Alertmanager is ready. AssertionError with its log if the process has exited."""
    assert process.poll() is None, log.read_text()
    with contextlib.suppress(httpx.HTTPError):
        return http.get("/-/ready").is_success
    return False
