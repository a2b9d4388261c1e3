"""The file that holds the state of one server."""

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.disk_writes import DiskThread
from pgwatch_sessions.file_names import safe_name
from pgwatch_sessions.memory.saved_state import MAX_BYTES, decode_state, encode_state

#: Only the owner may read it: even redacted, it shows what applications do.
_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFile:
    """Where the state of a server is kept. The methods block, and raise OSError if the system refuses."""

    directory: Path
    server: str
    #: The setting by which the daemon gathers: states with and without statement texts are not mixed.
    statements: str
    #: In which the methods are called while the daemon runs.
    disk: DiskThread = field(default_factory=DiskThread, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / f"{safe_name(self.server)}.state.json.gz"

    def read(self) -> bytes | None:
        """Return the content, None if there is no file yet. OSError if it is a FIFO, or larger than we write it."""
        try:
            # To open a FIFO would wait for a writer; O_NONBLOCK changes nothing for a file.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MAX_BYTES >> 20} MiB")
        return content

    def decode(self, content: bytes) -> ServerState:
        """Return the state in this content. UnusableStateError says why it is of no use."""
        return decode_state(content, server=self.server, statements=self.statements)

    def write(self, state: ServerState) -> None:
        """Replace the file as a whole: after a crash, also of the machine, it is the former or the new one."""
        content = encode_state(state, statements=self.statements)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        draft.unlink(missing_ok=True)  # of a process that was killed while it wrote
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Remove the file, so that the next start begins with nothing."""
        self.path.unlink(missing_ok=True)
