"""The samples of the documentation's section on leak tests, run as it says, and what it says of them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.programs import environment
from tests.support.servers import Database

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "docs" / "applications" / "leak_test"
SECTION = re.findall(
    r"^## A leak test for your suite\n(.*?)(?=^## |\Z)",
    (ROOT / "docs" / "applications.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)[0]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(database: Database, tmp_path: Path) -> Run:
    """Return a function that runs a module in a copy of the samples."""
    shutil.copytree(SAMPLES, tmp_path / "samples", ignore=shutil.ignore_patterns("__pycache__"))
    dsn = database.dsn()
    settings = {"DSN": dsn, "DATABASE_URL": dsn.replace("postgresql:", "postgresql+psycopg:")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path / "samples",
            env={**environment(), **settings, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def quiet(*arguments: str) -> tuple[str, ...]:
    """Return pytest's arguments."""
    return ("pytest", "-q", "-p", "no:cacheprovider", *arguments)


def shown(heading: str) -> str:
    """Return the first block of output after a text in the section."""
    after = SECTION[SECTION.index(heading) :]
    [block, *_] = re.findall(r"```console\n\$ .*\n(.*?)```", after, re.DOTALL)
    return str(block)


def test_the_plugin_names_the_line(run: Run) -> None:
    """The leaking test fails, its fixed sibling passes, and the documentation shows what pytest prints."""
    ended = run(*quiet("--connection-leaks=error", "test_orders.py"))
    assert ended.returncode == 1
    assert "2 passed, 1 error" in ended.stdout
    for line in shown("names the line").splitlines():
        assert line in ended.stdout


def test_a_fixture_that_compares_counts_misses_leaks(run: Run) -> None:
    """It passes while the application loses a connection, and the plugin sees that."""
    alone = run(*quiet("-k", "missed", "test_blind_fixture.py"))
    assert (alone.returncode, "1 passed" in alone.stdout) == (0, True), alone.stdout
    seen = run(*quiet("-k", "missed", "--connection-leaks=error", "test_blind_fixture.py"))
    assert seen.returncode == 1
    assert "\nleft out: SQLAlchemy connection, taken at orders.py:15 in read_order\n" in seen.stdout


def test_a_fixture_that_compares_counts_reports_what_is_no_leak(run: Run) -> None:
    """It looks before another fixture returns its connection. The plugin has nothing to add."""
    for option in ("off", "error"):
        ended = run(*quiet("-k", "false_alarm", f"--connection-leaks={option}", "test_blind_fixture.py"))
        assert (ended.returncode, "1 passed, 1 deselected, 1 error" in ended.stdout) == (1, True), ended.stdout
        assert "\nE       assert 1 == 0\n" in ended.stdout
        assert "left out" not in ended.stdout


def test_under_load(run: Run) -> None:
    """Sync and async."""
    ended = run(*quiet("test_orders_under_load.py"))
    assert (ended.returncode, "2 passed" in ended.stdout) == (0, True), ended.stdout


def test_unittest(run: Run) -> None:
    """One of three leaks."""
    ended = run("unittest", "unittest_orders")
    assert ended.returncode == 1
    assert "FAILED (failures=1)" in ended.stderr
    for line in shown("unittest and Django").splitlines():
        assert line in ended.stderr


def test_django(run: Run) -> None:
    """Django's own connection is not left out; another one is."""
    ended = run("django", "test", "--settings=django_shop", "--pattern=django_orders.py")
    assert ended.returncode == 1
    assert "FAILED (failures=1)" in ended.stderr
    assert "  psycopg connection, opened at django_shop.py:37 in report (3 times)" in ended.stderr


def test_every_sample_is_named_in_the_documentation() -> None:
    """And every one that is named exists."""
    named = set(re.findall(r"\(applications/leak_test/([\w.]+)\)", SECTION))
    assert named == {path.name for path in SAMPLES.glob("*.py")}
