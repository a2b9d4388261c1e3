"""Looks as lines of a file, redacted: written while polling, read again for replay."""

from pgwatch_sessions.recording.files import RecordingFile, open_recording
from pgwatch_sessions.recording.lines import BadLine
from pgwatch_sessions.recording.reading import Poll, read_polls
from pgwatch_sessions.recording.segments import Recorder
from pgwatch_sessions.recording.writing import written

__all__ = ["BadLine", "Poll", "Recorder", "RecordingFile", "open_recording", "read_polls", "written"]
