"""Recordings: files of polls with redacted statements. `docs/recording.md` describes the format."""

from pgwatch_sessions.recording.files import RecordingFile
from pgwatch_sessions.recording.lines import BadLine
from pgwatch_sessions.recording.reading import RecordedPoll, read_polls
from pgwatch_sessions.recording.segments import Recorder
from pgwatch_sessions.recording.writing import encode_poll

__all__ = ["BadLine", "RecordedPoll", "Recorder", "RecordingFile", "encode_poll", "read_polls"]
