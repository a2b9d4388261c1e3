"""A file system that never answers, as a network disk whose server is gone."""

import contextlib
import ctypes
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_DETACHED = 2


@contextlib.contextmanager
def hanging_mount(folder: Path) -> Iterator[None]:
    """Mount a file system at a new folder in which every call hangs until the end, or until its process is killed.

    It is a FUSE file system whose server answers nothing. OSError where we may not mount one.
    """
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as stack:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, server)  # ends the calls that hang
        place = os.fsencode(folder)
        options = f"fd={server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if libc.mount(b"hanging", place, b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount")
        stack.callback(libc.umount2, place, _DETACHED)
        yield


@functools.cache
def may_mount() -> bool:
    """Return whether we may mount such a file system here: on Linux, as root."""
    with (
        contextlib.suppress(OSError, AttributeError),
        tempfile.TemporaryDirectory() as folder,
        hanging_mount(Path(folder, "mount")),
    ):
        return True
    return False
