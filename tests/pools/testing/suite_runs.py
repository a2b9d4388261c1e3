"""Runs a test suite with the plugin in a process of its own, and reads what pytest says."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import environment

SUITES = Path(__file__).parent / "suites"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRun:
    """A finished run of pytest."""

    exit_code: int
    output: str

    @property
    def counts(self) -> dict[str, int]:
        """How many tests passed, failed and so on."""
        summary = self.output.rstrip().rpartition("\n")[2]
        return {
            word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) (\w+?)(?=,| in |s,|s in )", summary)
        }

    def left_out(self) -> dict[str, list[str]]:
        """Return what each test has left out, as its error at teardown says."""
        errors = re.findall(
            r"^_+ ERROR at teardown of (\S+) _+\n(.*?)(?=^_{5,} |^={5,} )", self.output, re.MULTILINE | re.DOTALL
        )
        return {name: re.findall(r"^(?:E +)?left out: (.*)$", text, re.MULTILINE) for name, text in errors}


def run_suite(folder: Path, *arguments: str, dsn: str = "") -> SuiteRun:
    """Run the tests in a folder. They find the server in TEST_DSN."""
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={folder / 'temporary'}",
            *arguments,
        ],
        cwd=folder,
        env={**environment(), "TEST_DSN": dsn, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return SuiteRun(exit_code=ended.returncode, output=ended.stdout + ended.stderr)


def copy_suite(name: str, folder: Path) -> Path:
    """Copy one of our suites to where pytest finds its tests. Return its file."""
    file = folder / f"test_{name}.py"
    shutil.copy(SUITES / f"{name}.py", file)
    return file
