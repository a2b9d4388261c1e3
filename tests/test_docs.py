"""The documentation against the code: what is generated, which rooms there are, which paths and names are mentioned."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pgwatch_sessions.metrics.table import METRICS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pgwatch_sessions"
GENERATOR = ROOT / "docs" / "generate.py"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: The rooms whose modules the architecture names one by one.
_LISTED = (PACKAGE, PACKAGE / "core")


def section(page: Path, heading: str) -> str:
    """Return the text between a heading of the second level and the next one."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no heading {heading}"
    return found[1]


def test_the_generated_parts_are_up_to_date(tmp_path: Path) -> None:
    """`make docs` was run after the last change of a command, a setting, a metric, a log event or a promise."""
    subprocess.run([sys.executable, GENERATOR, tmp_path], cwd="/", check=True, timeout=60)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 5
    for path in written:
        page = ROOT / path.relative_to(tmp_path)
        assert page.read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), f"{page.name}: run make docs"


def test_the_architecture_names_every_room_and_nothing_else() -> None:
    """Its table has every folder of the package, and every module that is directly in the package or in the core."""
    rooms = [
        name
        for cell in re.findall(r"^\| (`.+?`) \|", section(ROOT / "docs/architecture.md", "Rooms"), re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", cell)
    ]
    folders = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py")} - {"./"}
    modules = {str(path.relative_to(PACKAGE)) for folder in _LISTED for path in folder.glob("*.py")}
    existing = folders | {name for name in modules if not name.endswith("__init__.py")}
    assert existing - set(rooms) == set(), "docs/architecture.md does not name these"
    assert set(rooms) - existing == set(), "docs/architecture.md names these, and they do not exist"
    assert len(rooms) == len(set(rooms))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/detection.md"])
def test_every_path_that_is_mentioned_exists(page: str) -> None:
    """A path in backticks is a file or a folder of the project or its package. Those with <NAME> are to be created."""
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = {path for path in re.findall(r"`([\w.*/-]+/[\w.*/-]*)`", text) if not path.startswith("/")}
    assert [path for path in paths if not any((*ROOT.glob(path), *PACKAGE.glob(path)))] == []


def test_contributing_lists_every_target_of_make() -> None:
    """And only those that exist; `help` and `clean` explain themselves."""
    targets = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    table = "\n".join(re.findall(r"^\| (`.+?) \|", CONTRIBUTING, re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)`", table)) == set(targets) - {"help", "clean"}


def test_the_short_list_of_metrics_names_some_that_exist() -> None:
    """It says which metrics answer which question."""
    rows = re.findall(r"^\| .+\? \|(.+)\|$", (ROOT / "docs/metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(named) > 10
    assert set(named) <= {metric.name for metric in METRICS}
