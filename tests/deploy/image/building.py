"""Build targets of the Dockerfile with the settings that this machine needs to reach the package index.

The settings are mounted, or passed as the proxy arguments that every builder knows. None of them may be in the image. A
marker is added to them, so that a test can search for it even on a machine without such settings.
"""

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.deploy.image.base import SETTINGS
from tests.deploy.image.machine import Machine

PROJECT = Path(__file__).parents[3]
MARKER = "left-behind.invalid"
#: Build arguments for the labels.
LABELS = {
    "SOURCE": "https://example.org/source",
    "VERSION": "1.2.3",
    "REVISION": "f" * 40,
    "CREATED": "2026-01-02T03:04:05Z",
}

_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that this machine needs to reach the package index."""

    #: Files in /run/machine by name.
    files: Mapping[str, bytes]
    arguments: Mapping[str, str]

    def hosts(self) -> frozenset[str]:
        """Return all hosts in the settings, and the marker. The public index in uv.lock is not a secret."""
        texts = [*self.arguments.values(), *(self.files[name].decode() for name in ("pip.conf", "uv.toml"))]
        public = _hosts((PROJECT / "uv.lock").read_text()) | {"localhost", "127.0.0.1"}
        return _hosts("\n".join(texts)) - public | {MARKER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base image and the settings for all builds."""

    name: str
    settings: Settings


def settings_of_this_machine() -> Settings:
    """Read the settings where pip and uv read them."""
    proxies = {name: os.environ.get(name) or os.environ.get(name.lower(), "") for name in _PROXIES}
    exceptions = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    arguments = {name: value for name, value in proxies.items() if value}
    return Settings(
        files={"certificates": _certificates(), "pip.conf": _pip().encode(), "uv.toml": _uv().encode()},
        arguments={**arguments, "NO_PROXY": ",".join(filter(None, (exceptions, MARKER)))},
    )


def build(machine: Machine, target: str, base: Base, folder: Path) -> str:
    """Build a target, and return the image's name. `folder` is an empty folder for temporary files."""
    name = f"localhost/{target}:test"
    arguments = {"PYTHON_IMAGE": base.name, **LABELS, **base.settings.arguments}
    try:
        for file, content in base.settings.files.items():
            (folder / file).write_bytes(content)
        machine.buildah(
            *("bud", "--isolation=chroot", "--format=docker", "--pull-never", "--network=host", "--layers"),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *(f"--volume={folder}:{SETTINGS}:ro", f"--target={target}", f"--tag={name}"),
            PROJECT,
        )
    finally:
        for path in folder.iterdir():
            path.unlink()
    return name


def _hosts(text: str) -> frozenset[str]:
    addresses = re.findall(r"\w+://[^\s\"',]+", text)
    return frozenset(host for address in addresses if (host := urlsplit(address).hostname))


def _certificates() -> bytes:
    paths = (os.environ.get("SSL_CERT_FILE"), os.environ.get("PIP_CERT"), ssl.get_default_verify_paths().cafile)
    return next((Path(path).read_bytes() for path in paths if path and Path(path).exists()), b"")


def _pip() -> str:
    """Return a pip configuration with the options for the package index, from pip's files and variables."""
    python = Path(sys.base_prefix, "bin/python3")  # the environment itself may have no pip
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE))
    lines = [f"{name} = {found[name]}" for name in _PIP_OPTIONS if name in found]
    return "\n".join(["[global]", f"cert = {SETTINGS / 'certificates'}", *lines, f"# {MARKER}", ""])


def _uv() -> str:
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    return "\n".join([f'index-url = "{index}"' if index else "", f"# {MARKER}", ""])
