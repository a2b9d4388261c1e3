"""The example CI job, deploy/ci/connection-leak-test.yml: its commands, run in order on a small service.

GitHub's own steps and the installation are left out, and the waits are shorter.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgwatch_sessions.demo.child_process import child_process
from tests.support.ports import free_port
from tests.support.programs import environment
from tests.support.servers import OwnPostgresFactory

ROOT = Path(__file__).parents[1]
JOB: Mapping[str, Any] = yaml.safe_load((ROOT / "deploy/ci/connection-leak-test.yml").read_text())["jobs"][
    "connection-leaks"
]
SERVICE = ROOT / "docs" / "applications" / "ci_service"
#: The steps that need GitHub's machine, by the program that they start with.
INSTALLATION = ("sudo apt-get ", "python -m pip install ")
TESTS, START, LOAD, CHECK, REPLAY = (
    "No test leaves a connection out",
    "Start the application",
    "Load test, recorded",
    "No session is held",
    "Nothing leaked during the load test",
)
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is missing: apt install wrk")


def run_job(folder: Path, dsn: str) -> tuple[dict[str, int], str]:
    """Run the job's scripts, the next one also if one fails. Return their exit codes by name, and all output."""
    replacements = {
        "postgresql://postgres:postgres@127.0.0.1:5432/shop": dsn,
        "postgresql+psycopg://postgres:postgres@127.0.0.1:5432/shop": dsn.replace("postgresql:", "postgresql+psycopg:"),
        "8000": str(free_port()),
        "--duration 60s": "--duration 3s",
        "sleep 10": "sleep 4",
        "--hold-limit 5s --for 10s": "--hold-limit 1s --for 2s",
    }
    pattern = re.compile("|".join(map(re.escape, sorted(replacements, key=len, reverse=True))))

    def adapted(text: str) -> str:
        return pattern.sub(lambda found: replacements[found[0]], text)

    steps = [step for step in JOB["steps"] if "run" in step and not step["run"].startswith(INSTALLATION)]
    lines = []
    for number, step in enumerate(steps):
        script = folder / f"step-{number}.sh"
        script.write_text(adapted(step["run"]))
        lines.append(f'bash -e {script} && code=0 || code=$?; echo "ended {step["name"]} with $code"')
    settings = {name: adapted(value) for name, value in JOB["env"].items()}
    settings["PGWATCH_SESSIONS_HOLD_LIMIT"] = "1s"
    settings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = folder / "log"
    with child_process(
        ("bash", "-c", "\n".join(lines)), cwd=folder / "service", env={**environment(), **settings}, log=log
    ) as job:
        job.wait(timeout=100)
        output = log.read_text()
    codes = {name: int(code) for name, code in re.findall(r"ended (.+) with (\d+)\n", output)}
    assert codes.keys() == {step["name"] for step in steps}, output
    return codes, output


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Return the file of the service in a copy of it."""
    shutil.copytree(SERVICE, tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "service" / "orders" / "main.py"


def leaking(text: str, route: str) -> str:
    """Forget to close the session of a route, and keep it, as a list or a cache does."""
    before, at, after = text.partition(f'@app.get("{route}")')
    assert at
    broken = after.replace(
        "    with Session(engine) as session:\n", "    KEPT.append(session := Session(engine))\n    if True:\n", 1
    )
    assert broken != after
    return before + "KEPT = []\n\n\n" + at + broken


@needs_wrk
def test_a_service_that_returns_its_connections_passes(
    own_postgres: OwnPostgresFactory, service: Path, tmp_path: Path
) -> None:
    """Every step of the job does."""
    assert service.exists()
    codes, output = run_job(tmp_path, own_postgres().dsn())
    assert codes == dict.fromkeys((TESTS, START, LOAD, CHECK, REPLAY), 0), output


@needs_wrk
def test_both_halves_of_the_gate_find_a_leak(own_postgres: OwnPostgresFactory, service: Path, tmp_path: Path) -> None:
    """The tests name the line, and the server shows the sessions that are left after the load."""
    text = leaking(service.read_text(), "/orders")
    service.write_text(text)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "return list(session" in each)
    codes, output = run_job(tmp_path, own_postgres().dsn())
    assert codes == {TESTS: 1, START: 0, LOAD: 0, CHECK: 1, REPLAY: 1}, output
    assert f"left out: SQLAlchemy connection, taken at orders/main.py:{line} in list_orders" in output
    assert re.search(r"orders-api \(postgres, postgres\): 15 sessions idle in transaction at ", output)


@needs_wrk
def test_the_load_finds_what_no_test_reaches(own_postgres: OwnPostgresFactory, service: Path, tmp_path: Path) -> None:
    """The tests pass if they leave out the route that leaks."""
    service.write_text(leaking(service.read_text(), "/orders"))
    tests = service.parents[1] / "tests" / "test_orders.py"
    tests.write_text(tests.read_text().replace("def test_orders", "def leave_out"))
    codes, output = run_job(tmp_path, own_postgres().dsn())
    assert codes == {TESTS: 0, START: 0, LOAD: 0, CHECK: 1, REPLAY: 1}, output


def test_the_service_installs_what_it_imports() -> None:
    """The job installs requirements.txt."""
    required = {re.split(r"\W", line)[0] for line in (SERVICE / "requirements.txt").read_text().split()}
    imported = set(
        re.findall(r"^(?:from|import) (\w+)", "".join(map(Path.read_text, SERVICE.rglob("*.py"))), re.MULTILINE)
    )
    assert imported - {"orders", "os"} <= required
