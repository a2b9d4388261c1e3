"""Read an image: its configuration and all files of its layers, as a registry receives them."""

import gzip
import io
import json
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, folder or link of an image."""

    path: PurePosixPath
    #: Type and permissions, as in os.stat_result.
    mode: int
    owner: tuple[int, int]
    #: Empty unless it is a file.
    content: bytes

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link, whose permissions have no meaning."""
        return stat.S_ISLNK(self.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as a registry stores it."""

    #: User, Env, Labels, Healthcheck and so on.
    config: Mapping[str, Any]
    #: The whole configuration as text, including the history of the build.
    history: str
    entries: Mapping[PurePosixPath, Entry]
    #: Bytes that a pull transfers, and bytes on disk.
    compressed: int
    uncompressed: int

    def files(self) -> list[Entry]:
        """Return the regular files."""
        return [entry for entry in self.entries.values() if entry.is_file]


_TYPES = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.REGTYPE: stat.S_IFREG}


def read_image(layout: Path) -> Image:
    """Read an image from a folder in podman's `dir` layout."""
    manifest = json.loads((layout / "manifest.json").read_text())
    text = _blob(layout, manifest["config"]["digest"])
    layers = [_blob(layout, layer["digest"]) for layer in manifest["layers"]]
    archives = [gzip.decompress(layer) for layer in layers]
    return Image(
        config=json.loads(text)["config"],
        history=text.decode(),
        entries={entry.path: entry for archive in archives for entry in _entries(archive)},
        compressed=sum(map(len, layers)),
        uncompressed=sum(map(len, archives)),
    )


def _entries(archive: bytes) -> list[Entry]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [
            Entry(
                path=PurePosixPath("/", member.name),
                mode=_TYPES.get(member.type, 0) | member.mode,
                owner=(member.uid, member.gid),
                content=file.read() if (file := tar.extractfile(member) if member.isreg() else None) else b"",
            )
            for member in tar
        ]


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / digest.removeprefix("sha256:")).read_bytes()
