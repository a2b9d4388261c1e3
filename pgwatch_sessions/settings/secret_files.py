"""Files that hold one secret."""

import errno
import os
from pathlib import Path

_LIMIT = 64 * 1024


def read_secret(path: Path) -> str:
    """Return the text without one trailing newline; OSError, with path and reason, when there is none to be had."""
    if path.exists() and not path.is_file():  # a pipe would keep the daemon waiting
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(_LIMIT + 1)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "is not UTF-8 text", str(path)) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(content) > _LIMIT or "\0" in text:
        raise OSError(errno.EINVAL, "is empty, longer than 64 KiB, or binary", str(path))
    return text


def explained_secret(error: OSError) -> str:
    """Return path and reason; not the path that is none, since the secret itself may stand in its place."""
    path = str(error.filename)
    if path.startswith(("/", "./", "../")) and "://" not in path:
        return explained(error)
    return explained(OSError(error.errno, error.strerror, "the file that is named here"))


def explained(error: OSError) -> str:
    """Return path and reason, for a person."""
    reason = error.strerror or os.strerror(error.errno or errno.EIO)
    return f"cannot use {error.filename}: {reason[0].lower()}{reason[1:]}"
