import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import Database
from tests.support.waiting import until

pytestmark = pytest.mark.slow

#: A master that forks workers, as gunicorn with --preload. It answers each line that it reads with a line.
_MASTER = """
import os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import create_engine
from pgwatch_sessions.pools import instrument
from pgwatch_sessions.pools.multiprocess import publish_multiprocess

engine = create_engine(sys.argv[1], pool_size=1, max_overflow=1)
instrument(engine, name="orders")
publish_multiprocess(every=0.02)
workers = []

def worker(commands, answers):
    out = []
    for line in commands:
        if line == "borrow\\n":
            out.append(engine.connect())
        elif line == "return\\n":
            out.pop().close()
        os.write(answers, b"done\\n")
    os._exit(0)

def fork():
    to_worker, from_worker = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(to_worker[1])
        for _, writing, _ in workers:
            writing.close()
        worker(os.fdopen(to_worker[0]), from_worker[1])
    os.close(to_worker[0])
    workers.append((pid, os.fdopen(to_worker[1], "w"), os.fdopen(from_worker[0])))

for line in sys.stdin:
    command, *number = line.split()
    if command == "fork":
        fork()
    elif command == "scrape":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        sys.stdout.write(repr(generate_latest(registry).decode()) + "\\n")
        sys.stdout.flush()
        continue
    elif command == "kill":
        pid = workers[int(number[0])][0]
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    else:
        _, writing, reading = workers[int(number[0])]
        writing.write(command + "\\n")
        writing.flush()
        reading.readline()
    sys.stdout.write("done\\n")
    sys.stdout.flush()
for pid, *_ in workers:
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except OSError:
        pass
"""


class Master:
    """A running master, its workers, and what a scrape of them shows."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def do(self, command: str) -> str:
        """Let it do something, and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._process.poll()
        return answer

    def series(self, name: str) -> float | None:
        """Return the value of a series of the pool orders; None if there is none."""
        for line in ast.literal_eval(self.do("scrape")).splitlines():
            series, _, value = line.rpartition(" ")
            if series.replace('db_client_connection_pool_name="orders"', "").replace("{,", "{") == name:
                return float(value)
        return None


def test_a_scrape_adds_up_the_workers_and_leaves_out_the_dead(database: Database, tmp_path: Path) -> None:
    """Gauges lose a worker that was killed; counters keep what it counted."""
    used = 'db_client_connection_count{db_client_connection_state="used"}'
    url = database.dsn().replace("postgresql:", "postgresql+psycopg:")
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", _MASTER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        master = Master(process)
        for command in ("fork", "fork", "borrow 0", "borrow 0", "borrow 1"):
            master.do(command)
        until(lambda: master.series(used) == 3)
        until(lambda: master.series("db_client_connection_overflow{}") == 1)
        assert master.series("db_client_connection_max{}") == 6  # of the master and two workers
        master.do("return 0")
        until(lambda: master.series("db_client_connection_use_time_seconds_count{}") == 1)
        until(lambda: master.series(used) == 2)
        master.do("kill 0")
        until(lambda: master.series(used) == 1)
        assert master.series("db_client_connection_use_time_seconds_count{}") == 1
        assert master.series("db_client_connection_timeouts_total{}") == 0
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_without_its_folder_it_says_what_to_do() -> None:
    """Without it, prometheus_client would keep the numbers of each process for itself."""
    program = "from pgwatch_sessions.pools.multiprocess import publish_multiprocess; publish_multiprocess()"
    environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert "PROMETHEUS_MULTIPROC_DIR is not set: without it, register PoolCollector() instead" in ran.stderr
