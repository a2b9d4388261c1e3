"""A project of somebody else: the wheel with its extras in an empty environment, and a suite that leaks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import environment
from tests.support.servers import Database

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "docs" / "applications" / "leak_test"
pytestmark = [pytest.mark.installed, pytest.mark.timeout(400)]

#: What the project has besides the wheel: the newest of everything, and the oldest that the plugin supports.
ENVIRONMENTS = {
    "newest": ("pytest", "pytest-asyncio", "pytest-xdist", "psycopg[binary]"),
    "oldest": (
        "pytest==8.0.0",
        "pytest-asyncio==0.23.5",
        "pytest-xdist==3.5.0",
        "psycopg[binary]==3.1.18",
        "psycopg-pool==3.1.9",
        "sqlalchemy==2.0.0",
    ),
}
ASYNC_TESTS = """
import os

import asyncpg
import pytest

KEPT = []


@pytest.mark.asyncio
async def test_leaking():
    KEPT.append(await asyncpg.connect(os.environ["DSN"]))


@pytest.mark.asyncio
async def test_fixed():
    connection = await asyncpg.connect(os.environ["DSN"])
    await connection.close()
"""


def uv(*arguments: str | Path) -> None:
    """Run uv, first with what its cache has, then with the package index."""
    program = shutil.which("uv", path=f"{ROOT / '.tools/bin'}:{os.environ['PATH']}")
    assert program, "uv is missing: it is in .tools after any target of make"
    errors = ""
    for offline in (["--offline"], []):
        ended = subprocess.run(
            [program, *arguments, *offline], capture_output=True, text=True, timeout=300, check=False
        )
        if ended.returncode == 0:
            return
        errors += ended.stderr
    pytest.fail(errors)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", f"-d{folder}", "-twheel"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    [wheel] = folder.iterdir()
    return wheel


@pytest.mark.parametrize("versions", ENVIRONMENTS)
def test_a_scratch_project_finds_its_leak(versions: str, wheel: Path, tmp_path: Path, database: Database) -> None:
    """Its leaking tests fail with the line, its fixed ones pass; without the option nothing is checked."""
    python = tmp_path / "venv/bin/python"
    uv("venv", "--python", sys.executable, tmp_path / "venv")
    uv("pip", "install", "--python", python, f"{wheel}[sqlalchemy,psycopg]", *ENVIRONMENTS[versions])
    project = tmp_path / "project"
    project.mkdir()
    for name in ("orders.py", "test_orders.py"):
        shutil.copy(SAMPLES / name, project)
    (project / "test_async.py").write_text(ASYNC_TESTS)
    dsn = database.dsn()
    settings = {"DSN": dsn, "DATABASE_URL": dsn.replace("postgresql:", "postgresql+psycopg:")}

    def run(*arguments: str) -> tuple[int, str]:
        ended = subprocess.run(
            [python, "-m", "pytest", "-q", *arguments],
            cwd=project,
            env={**environment(), **settings, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    code, output = run()
    assert (code, "4 passed" in output) == (0, True), output
    for options in ((), ("-n", "2"), (f"--connection-leaks-dsn={dsn}",)):
        code, output = run("--connection-leaks=error", *options)
        assert (code, "4 passed" in output, "2 errors" in output) == (1, True, True), output
        assert set(re.findall(r"^left out: (.+)$", output, re.MULTILINE)) == {
            "asyncpg connection, opened at test_async.py:12 in test_leaking",
            "SQLAlchemy connection, taken at orders.py:15 in read_order",
        }
        assert set(re.findall(r"ERROR at teardown of (\w+)", output)) == {"test_leaking", "test_no_such_order"}
