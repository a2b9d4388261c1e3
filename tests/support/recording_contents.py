"""What the tests of this folder write into recordings, and how they read it back."""

import json
import os
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from pgwatch_sessions.core.model import Snapshot
from pgwatch_sessions.recording import BadLine, RecordedPoll, read_polls
from tests.support.values import NOW, session, snapshot

BY_HAND = Path(__file__).parents[1] / "recordings" / "by_hand.jsonl"


def read(content: bytes) -> list[RecordedPoll | BadLine]:
    """Read a file of this content."""
    return list(read_polls(BufferedReader(BytesIO(content))))


def polls_in(*paths: Path) -> list[RecordedPoll]:
    """Return the polls of files that must not have a bad line."""
    found = [item for path in paths for item in read(path.read_bytes())]
    assert all(isinstance(item, RecordedPoll) for item in found), found
    return [item for item in found if isinstance(item, RecordedPoll)]


def line_of(**keys: Any) -> bytes:
    """Return the line of a poll without sessions, with these keys added or replaced."""
    return json.dumps({"taken_at": "2026-11-21T03:00:00Z", "sessions": []} | keys).encode()


def incompressible(number: int) -> Snapshot:
    """Return a snapshot that takes about 2 kB, compressed or not."""
    return snapshot(*(session(pid, query=f"SELECT t{os.urandom(16).hex()}") for pid in range(60)), at=NOW + number)
