"""Looks as lines of a file, redacted: written while looking, read again for replay."""

from pgwatch_sessions.recording.files import RecordingFile, open_recording
from pgwatch_sessions.recording.lines import BadLine
from pgwatch_sessions.recording.reading import Look, read_looks
from pgwatch_sessions.recording.segments import Recorder
from pgwatch_sessions.recording.writing import written

__all__ = ["BadLine", "Look", "Recorder", "RecordingFile", "open_recording", "read_looks", "written"]
