"""Files that hold one secret, such as a password."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file whose secret is read whenever it is called. Two are equal if their paths are."""

    path: Path

    def __call__(self) -> str:
        """Return the secret as `read_secret` does."""
        return read_secret(self.path)


def read_secret(path: Path) -> str:
    """Return the file's text without one trailing newline. Raises OSError with the path and the reason."""
    if path.exists() and not path.is_file():  # reading a pipe would block the daemon
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8 text", str(path)) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(content) > _MAX_BYTES or "\0" in text:
        raise OSError(errno.EINVAL, "empty, longer than 64 KiB, or binary", str(path))
    return text


def explained_secret(error: OSError) -> str:
    """Return path and reason. What does not look like a path is not shown: it may be the secret itself."""
    path = str(error.filename)
    if path.startswith(("/", "./", "../")) and "://" not in path:
        return explained(error)
    return explained(OSError(error.errno, error.strerror, "the named file"))


def explained(error: OSError) -> str:
    """Return path and reason, for example `cannot use /run/dsn: no such file or directory`."""
    reason = error.strerror or os.strerror(error.errno or errno.EIO)
    return f"cannot use {error.filename}: {reason[0].lower()}{reason[1:]}"
