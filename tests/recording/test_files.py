import gzip
from pathlib import Path

import pytest

from pgwatch_sessions.recording import RecordingFile
from tests.support.recording_contents import line_of, polls_in


@pytest.mark.promise("Only its owner can read what it writes.")
@pytest.mark.parametrize(("name", "empty"), [("a.jsonl", b""), ("a.jsonl.gz", gzip.compress(b"")[10:])])
def test_recording_is_private_and_not_overwritten(tmp_path: Path, name: str, empty: bytes) -> None:
    """Only the owner may read it; it is overwritten only on request; its name decides whether it is compressed."""
    path = tmp_path / name
    with RecordingFile(path) as file:
        file.write(line_of() + b"\n")
    with pytest.raises(FileExistsError):
        RecordingFile(path)
    assert len(polls_in(path)) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    with RecordingFile(path, overwrite=True):
        pass
    assert polls_in(path) == []
    assert path.read_bytes()[10:] == empty
