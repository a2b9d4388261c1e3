"""Files that recordings are written to. Each line is in the file when `append` returns, so a crash loses none."""

import contextlib
import errno
import os
import stat
import zlib
from pathlib import Path
from typing import Self

#: Only the owner may read it: even redacted, a recording shows what an application does.
_MODE = 0o600
#: The largest end mark of gzip data: an empty block, a checksum and a length.
END_BYTES = 32


class RecordingFile:
    """A file that grows by complete lines; compressed if its name ends in `.gz`.

    If the system refuses, methods raise OSError, and all lines written before stay readable.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Create the file. FileExistsError if it exists and may not be overwritten."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if overwrite else os.O_EXCL)
        self.path = path
        #: Bytes on disk.
        self.size = 0
        self._compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16) if path.suffix == ".gz" else None
        self._descriptor: int | None = os.open(path, flags, _MODE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, line: bytes) -> None:
        """Append a line."""
        self.append(self.encode(line))

    def encode(self, line: bytes) -> bytes:
        """Return the line as it is to be appended. It must be the next thing that is appended."""
        if self._compressor is None:
            return line
        return self._compressor.compress(line) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def append(self, encoded: bytes) -> None:
        """Append an encoded line. If it cannot be written whole, cut it off again and close the file.

        Compressed lines depend on each other: after a lost one, no further line could be read. FileNotFoundError if
        the file was deleted.
        """
        if self._descriptor is None:
            raise ValueError("the file is closed")
        try:
            if os.fstat(self._descriptor).st_nlink == 0:
                # The system would go on writing, and nobody could ever read it.
                raise FileNotFoundError(errno.ENOENT, "deleted while it was being written", str(self.path))
            rest = memoryview(encoded)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.abandon()
            raise
        self.size += len(encoded)

    def close(self) -> None:
        """Write the end mark and close the file, unless it is closed."""
        if self._descriptor is not None:
            if self._compressor is not None:
                self.append(self._compressor.flush(zlib.Z_FINISH))
            os.close(self._descriptor)
            self._descriptor = None

    def abandon(self) -> None:
        """Close the file after its last complete line, without an end mark."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.ftruncate(descriptor, self.size)
            os.close(descriptor)
