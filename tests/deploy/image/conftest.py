"""Fixtures: a machine for containers, and the images of the Dockerfile, each built once."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.image.base import build_base_image
from tests.deploy.image.building import PROJECT, Base, build, settings_of_this_machine
from tests.deploy.image.layers import Image, read_image
from tests.deploy.image.machine import Machine, container_machine, reason_to_skip


@pytest.fixture(scope="session")
def containers(nothing_left_behind: None) -> Iterator[Machine]:  # noqa: ARG001  # for its order
    """Return a machine for containers. Its images and caches stay in .tools/image."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with container_machine(PROJECT / ".tools/image") as ready:
        yield ready


@pytest.fixture(scope="session")
def base(containers: Machine) -> Base:
    """Return the substitute for the base image, and this machine's settings."""
    started = time.monotonic()
    name = build_base_image(containers)
    print(f"\nbase: {time.monotonic() - started:.0f} s")
    return Base(name=name, settings=settings_of_this_machine())


@pytest.fixture(scope="session")
def daemon_image(containers: Machine, base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the default target, and return the image's name."""
    return _build_timed("daemon", containers, base, tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def service_image(containers: Machine, base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the target `service`, and return the image's name."""
    return _build_timed("service", containers, base, tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def contents(containers: Machine, daemon_image: str, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return the contents of the daemon's image."""
    layout = tmp_path_factory.mktemp("image")
    containers.buildah("push", "--quiet", "--format=v2s2", daemon_image, f"dir:{layout}")
    return read_image(layout)


def _build_timed(target: str, containers: Machine, base: Base, folder: Path) -> str:
    started = time.monotonic()
    name = build(containers, target, base, folder)
    print(f"\n{target}: built in {time.monotonic() - started:.0f} s")
    return name
