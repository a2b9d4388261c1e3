"""Files that recordings are written to. A line is in the file when `append` returns, so that a crash loses none."""

import contextlib
import os
import stat
import zlib
from pathlib import Path
from typing import Self

#: For the owner only: redacted or not, it tells what an application does.
_MODE = 0o600
#: What the end of compressed data takes at most: an empty block, checksum and length.
END_BYTES = 32


class RecordingFile:
    """A file that grows by whole lines, compressed when its name ends in `.gz`.

    Each method raises OSError when the system refuses; the lines appended before stay readable.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Make the file; FileExistsError when it is there already and is not to be overwritten."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if overwrite else os.O_EXCL)
        self.path = path
        #: Bytes on the disk.
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
        """Return what must be appended next for this line."""
        if self._compressor is None:
            return line
        return self._compressor.compress(line) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def append(self, encoded: bytes) -> None:
        """Append what is encoded, all or nothing. After nothing the file is closed: no further line would fit on."""
        if self._descriptor is None:
            raise ValueError("the file is closed")
        try:
            rest = memoryview(encoded)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.abandon()
            raise
        self.size += len(encoded)

    def close(self) -> None:
        """End the file in good order; nothing when it is closed."""
        if self._descriptor is not None:
            if self._compressor is not None:
                self.append(self._compressor.flush(zlib.Z_FINISH))
            os.close(self._descriptor)
            self._descriptor = None

    def abandon(self) -> None:
        """Close the file as it is after the last line that was appended whole."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.ftruncate(descriptor, self.size)
            os.close(descriptor)


def open_recording(path: Path, *, overwrite: bool = False) -> RecordingFile:
    """Begin a recording in one file; FileExistsError when it is there and is not to be overwritten."""
    return RecordingFile(path, overwrite=overwrite)
