"""Build a substitute for the base image on this machine: a minimal Debian with Python, like the official image.

Python is a copy of the one that runs the tests, under /usr/local. If that is Debian's own Python, which cannot be
copied, Debian's package is installed. PGWATCH_TEST_IMAGE_PYTHON=/prefix selects another Python.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.deploy.image.machine import Machine

SUITE = "bookworm"
#: Packages that the official slim image adds to a minimal Debian for its Python.
LIBRARIES = (
    *("ca-certificates", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libncursesw6", "libreadline8"),
    *("libsqlite3-0", "libssl3", "libuuid1", "netbase", "tzdata", "zlib1g"),
)
DEBIANS_PYTHON = ("python3", "python3-venv")

#: Where builds find the settings of this machine. They are mounted, so that no image contains them.
SETTINGS = Path("/run/machine")
POINTERS = {
    "SSL_CERT_FILE": SETTINGS / "certificates",
    "PIP_CONFIG_FILE": SETTINGS / "pip.conf",
    "UV_CONFIG_FILE": SETTINGS / "uv.toml",
}


def build_base_image(machine: Machine) -> str:
    """Return the name of the substitute. It is built only if the folder does not have it yet."""
    python = _python()
    kind = repr(
        (SUITE, LIBRARIES, DEBIANS_PYTHON, python, python and _version(python), POINTERS, Path(__file__).read_text())
    )
    name = f"localhost/python:{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
    if name in machine.buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return name
    root = machine.folder / "base"
    shutil.rmtree(root, ignore_errors=True)
    packages = LIBRARIES if python else (*LIBRARIES, *DEBIANS_PYTHON)
    machine.run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, root, *_mirror())
    if python:
        _copy_python(python, root / "usr/local")
    machine.run("chroot", root, "ldconfig")
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    container = machine.buildah("from", "scratch")
    machine.buildah("add", "--quiet", container, root, "/")
    machine.buildah("config", *(f"--env={name}={path}" for name, path in POINTERS.items()), container)
    machine.buildah("commit", "--quiet", "--rm", container, name)
    shutil.rmtree(root)
    return name


def _python() -> Path | None:
    """Return the prefix of the Python to copy; None for Debian's own."""
    prefix = Path(os.environ.get("PGWATCH_TEST_IMAGE_PYTHON", sys.base_prefix))
    return None if prefix == Path("/usr") else prefix


def _version(prefix: Path) -> str:
    return subprocess.run([prefix / "bin/python3", "-VV"], capture_output=True, text=True, check=True).stdout


def _copy_python(prefix: Path, target: Path) -> None:
    """Copy the interpreter and its standard library, without debug symbols, like the official image."""
    [stdlib] = prefix.glob("lib/python3.*/os.py")
    for pattern in ("bin/python3", "bin/python3.[0-9]*", "lib/libpython3*.so*"):
        for path in prefix.glob(pattern):
            shutil.copy2(path, target / path.relative_to(prefix), follow_symlinks=False)
    excluded = shutil.ignore_patterns("site-packages", "test", "tests", "config-*", "__pycache__", "idlelib")
    shutil.copytree(stdlib.parent, target / "lib" / stdlib.parent.name, symlinks=True, ignore=excluded)
    if shutil.which("strip"):
        subprocess.run(["strip", *target.glob("lib/libpython3.*.so.*"), *target.rglob("lib-dynload/*.so")], check=True)


def _mirror() -> list[str]:
    """Return the address of this machine's Debian mirror, if it has one."""
    targets = ["apt-get", "indextargets", "--format=$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}"]
    return subprocess.run(targets, capture_output=True, text=True, check=False).stdout.split()[:1]
