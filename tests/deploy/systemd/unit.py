"""Read the unit file."""

import shutil
import subprocess
from ctypes.util import find_library
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SYSTEMD = ROOT / "deploy" / "systemd"
UNIT = SYSTEMD / "pgwatch-sessions.service"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: apt install systemd"
)

needs_seccomp = pytest.mark.skipif(
    find_library("seccomp") is None, reason="libseccomp is not installed: apt install libseccomp2"
)


def unit_values(text: str, key: str) -> list[str]:
    """Return the values of a setting in order. As in systemd, an empty value removes the earlier ones."""
    found: list[str] = []
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name == key:
            found = [*found, value] if value else []
    return found


def unit_value(key: str) -> str:
    """Return the only value of a setting in the shipped unit."""
    (found,) = unit_values(UNIT.read_text(encoding="utf-8"), key)
    return found


def is_set(key: str) -> bool:
    """Return whether the shipped unit has this setting, even with an empty value."""
    return any(line.startswith(f"{key}=") for line in UNIT.read_text(encoding="utf-8").splitlines())


def allowed_calls() -> list[str]:
    """Return the system calls that SystemCallFilter allows. A line with ~ removes calls."""
    allowed: set[str] = set()
    for line in unit_values(UNIT.read_text(encoding="utf-8"), "SystemCallFilter"):
        named = {call for word in line.removeprefix("~").split() for call in _calls(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return sorted(allowed)


def _calls(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    result = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [line.strip() for line in result.stdout.splitlines()[1:]]
    return {call for line in lines if line and not line.startswith("#") for call in _calls(line)}
