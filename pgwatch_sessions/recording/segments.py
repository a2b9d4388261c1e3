"""An endless recording in a directory of bounded size. It consists of segments; the oldest are deleted first."""

import errno
import os
import re
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.file_names import safe_name
from pgwatch_sessions.recording.files import END_BYTES, RecordingFile
from pgwatch_sessions.recording.lines import MAX_LINE_BYTES
from pgwatch_sessions.recording.writing import encode_poll

#: A segment ends after an hour or at an eighth of the room, so that deleting the oldest loses little.
_SEGMENT_SECONDS = 3600.0
_SEGMENTS = 8
#: The time comes first, so that names sort by age.
_SEGMENT_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-.+\.jsonl\.gz", re.ASCII)


class _Segment(NamedTuple):
    """A segment that is being written."""

    file: RecordingFile
    begun_at: float


class Recorder:
    """Records the polls of all servers into one directory, which belongs to one daemon.

    All segments in it, those of earlier runs included, take at most `max_bytes`. It is safe to call from threads.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        """Do not touch the disk: the first poll creates the directory."""
        self.directory = directory
        #: It may be changed between polls.
        self.max_bytes = max_bytes
        self._growing: dict[str, _Segment] = {}
        #: Bytes of the segments that have ended.
        self._sizes: dict[Path, int] = {}
        self._lock = threading.Lock()

    def record(self, server: str, outcome: Snapshot | Failure, *, at: float) -> None:
        """Record a poll that was made `at` the daemon's time.

        OSError if the system refuses, if the poll is larger than `max_bytes` or than a line may be, or if the segment
        was deleted: this poll is lost, everything recorded before stays, and the next poll starts a new segment. It
        makes the directory again if that was deleted too.
        """
        line = encode_poll(outcome, server=server, at=at)
        if len(line) > MAX_LINE_BYTES:
            raise OSError(
                errno.EFBIG, f"the poll takes more than {MAX_LINE_BYTES >> 20} MiB, so no replay would read it"
            )
        with self._lock:
            segment = self._growing.get(server) or self._begin(server, at)
            try:
                encoded = segment.file.encode(line)
                self._make_room(len(encoded), segment.file)
                segment.file.append(encoded)
                if self._is_full(segment, at):
                    segment.file.close()
                    self._retire(server)
            except OSError:
                segment.file.abandon()
                self._retire(server)
                raise

    def end(self, server: str) -> None:
        """End the segment of a server that is not recorded any more; OSError if the system refuses."""
        with self._lock:
            if server in self._growing:
                try:
                    self._growing[server].file.close()
                finally:
                    self._retire(server)

    def close(self) -> None:
        """End every segment; OSError if the system refuses."""
        with self._lock, ExitStack() as files:
            for segment in self._growing.values():
                files.callback(segment.file.close)
            self._growing = {}

    def _begin(self, server: str, at: float) -> _Segment:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        growing = {segment.file.path for segment in self._growing.values()}
        self._sizes = {path: size for path, size in _segments(self.directory).items() if path not in growing}
        segment = _Segment(_new_file(self.directory, server, at), at)
        self._growing[server] = segment
        return segment

    def _is_full(self, segment: _Segment, at: float) -> bool:
        room = self.max_bytes / _SEGMENTS / len(self._growing)
        return segment.file.size >= room or abs(at - segment.begun_at) >= _SEGMENT_SECONDS

    def _retire(self, server: str) -> None:
        file = self._growing.pop(server).file
        if file.size:
            self._sizes[file.path] = file.size
        else:
            file.path.unlink(missing_ok=True)

    def _make_room(self, needed: int, file: RecordingFile) -> None:
        """Delete the oldest segments until this file can grow by so many bytes."""
        if file.size + needed + END_BYTES > self.max_bytes:
            raise OSError(errno.EFBIG, "one poll takes more room than all recordings may (record_max_bytes)")
        while self._used() + needed > self.max_bytes:
            if not self._sizes:
                self._retire_another(file)
            oldest = min(self._sizes)
            oldest.unlink(missing_ok=True)
            del self._sizes[oldest]

    def _used(self) -> int:
        return sum(self._sizes.values()) + sum(s.file.size + END_BYTES for s in self._growing.values())

    def _retire_another(self, file: RecordingFile) -> None:
        """End the oldest segment that is being written, except this one."""
        server = min((s.begun_at, server) for server, s in self._growing.items() if s.file is not file)[1]
        self._growing[server].file.abandon()
        self._retire(server)


def _segments(directory: Path) -> dict[Path, int]:
    """Return the size of each segment."""
    with os.scandir(directory) as entries:
        return {
            Path(entry.path): entry.stat().st_size
            for entry in entries
            if _SEGMENT_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        }


def _new_file(directory: Path, server: str, at: float) -> RecordingFile:
    begun_at = datetime.fromtimestamp(at, UTC)
    while True:
        try:
            return RecordingFile(directory / f"{begun_at:%Y%m%dT%H%M%S.%fZ}-{safe_name(server)}.jsonl.gz")
        except FileExistsError:  # the clock was set back to a time that is already in a name
            begun_at += timedelta(microseconds=1)
