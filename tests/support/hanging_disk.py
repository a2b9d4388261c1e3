"""A file system that never answers, as a network disk whose server is gone."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_DETACHED = 2


@contextlib.contextmanager
def hanging_mount(folder: Path) -> Iterator[None]:
    """Mount a file system at the folder in which every call hangs until the end, or until its process is killed.

    It is a FUSE file system whose server answers nothing. The test is skipped where we may not mount one.
    """
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as stack:
        try:
            server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            pytest.skip(f"no FUSE here: {error}")
        stack.callback(os.close, server)  # ends the calls that hang
        place = os.fsencode(folder)
        options = f"fd={server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if libc.mount(b"hanging", place, b"fuse", 0, options.encode()):
            pytest.skip(f"may not mount: {os.strerror(ctypes.get_errno())}")
        stack.callback(libc.umount2, place, _DETACHED)
        yield
