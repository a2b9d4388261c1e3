"""Checks that a tag names the version that this code has, and prints what the changelog says about it.

python release.py vX.Y.Z
"""

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def main() -> int:
    """Return 1 if the tag, the code and the changelog do not agree."""
    tag = sys.argv[1]
    version = declared(PROJECT / "pgwatch_sessions/__init__.py")
    if tag != f"v{version}":
        sys.stderr.write(f"error: the tag is {tag}, but pgwatch_sessions/__init__.py says {version}\n")
        return 1
    notes = about(version, PROJECT / "CHANGELOG.md")
    if not notes:
        sys.stderr.write(f"error: CHANGELOG.md has nothing under ## [{version}] - YYYY-MM-DD\n")
        return 1
    sys.stdout.write(f"{notes}\n")
    return 0


def declared(module: Path) -> str:
    """Return the version without importing the package, whose libraries need not be installed."""
    [version] = re.findall(r'^__version__ = "(.+)"$', module.read_text(), re.MULTILINE)
    return version


def about(version: str, changelog: Path) -> str:
    """Return the part of the changelog under the version's heading, empty if there is none."""
    part = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## \[|\Z)"
    found = re.search(part, changelog.read_text(), re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


if __name__ == "__main__":
    sys.exit(main())
