"""Files that are read whole: what they are is checked before they are opened."""

import errno
from pathlib import Path
from stat import S_ISREG


def check_file(path: Path, max_bytes: int) -> None:
    """Raise OSError unless it is a regular file of at most so many bytes. A pipe would make the daemon wait."""
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes // 1024} KiB", str(path))
