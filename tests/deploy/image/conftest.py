"""Fixtures: a machine for containers, and the images of the Dockerfile, built once."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.image.base import stand_in
from tests.deploy.image.building import PROJECT, Base, build, settings_of_this_machine
from tests.deploy.image.layers import Image, read
from tests.deploy.image.machine import Machine, machine, obstacle


@pytest.fixture(scope="session")
def containers(nothing_left_behind: None) -> Iterator[Machine]:  # noqa: ARG001  # for its order
    """Return a machine for containers whose images and caches stay in .tools/image."""
    if reason := obstacle():
        pytest.skip(reason)
    with machine(PROJECT / ".tools/image") as ready:
        yield ready


@pytest.fixture(scope="session")
def base(containers: Machine) -> Base:
    """Return the stand-in for the base image and this machine's settings."""
    started = time.monotonic()
    name = stand_in(containers)
    print(f"\nbase: {time.monotonic() - started:.0f} s")
    return Base(name=name, settings=settings_of_this_machine())


@pytest.fixture(scope="session")
def daemon_image(containers: Machine, base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of the built default target."""
    return _built("daemon", containers, base, tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def service_image(containers: Machine, base: Base, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of the built target `service`."""
    return _built("service", containers, base, tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def contents(containers: Machine, daemon_image: str, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Return what is in the daemon's image."""
    layout = tmp_path_factory.mktemp("image")
    containers.buildah("push", "--quiet", "--format=v2s2", daemon_image, f"dir:{layout}")
    return read(layout)


def _built(target: str, containers: Machine, base: Base, folder: Path) -> str:
    started = time.monotonic()
    name = build(containers, target, base, folder)
    print(f"\n{target}: built in {time.monotonic() - started:.0f} s")
    return name
