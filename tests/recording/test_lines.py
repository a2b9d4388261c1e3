"""Files of any content, compressed or not, in bounded memory."""

import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pytest

from pgwatch_sessions.recording import BadLine, RecordedPoll, RecordingFile, read_polls
from tests.support.recording_contents import line_of, read

MIB = 2**20


@pytest.mark.promise("A file that it reads can neither end nor exhaust it.")
@pytest.mark.parametrize("opened", [Path.open, gzip.open], ids=["plain", "gzip"])
def test_too_long_line_takes_no_memory(tmp_path: Path, opened: Callable[[Path, str], BinaryIO]) -> None:
    """It is skipped while it is read, also if a small file holds it compressed; the next line is read."""
    path = tmp_path / "long"
    with opened(path, "wb") as file:
        file.seek(200 * MIB)  # zeros, which take no room on the disk
        file.write(b"\n" + line_of())
    (bad, good), peak = read_measured(path)
    assert peak < 40 * MIB
    assert bad == BadLine(1, "longer than 16 MiB")
    assert isinstance(good, RecordedPoll)


def test_compressed_newlines_take_no_memory(tmp_path: Path) -> None:
    """A small file that holds a thousand times its size in blank lines is read in pieces."""
    path = tmp_path / "newlines"
    path.write_bytes(gzip.compress(b"\n" * (MIB // 4)))
    found, peak = read_measured(path)
    assert len(found) == 1  # after a hundred thousand of them, reading stops
    assert peak < MIB / 8


@pytest.mark.parametrize("opened", [Path.open, gzip.open], ids=["plain", "gzip"])
def test_file_is_read_up_to_a_number_of_bytes(tmp_path: Path, opened: Callable[[Path, str], BinaryIO]) -> None:
    """They count after decompression, also in the middle of a line; what was read before stays."""
    path = tmp_path / "large"
    for rest in (b"\n" + line_of(), b"\0" * 64 * MIB):
        with opened(path, "wb") as file:
            file.write(line_of() + b"\n" * 10 + rest)
        with path.open("rb") as source:
            first, *_, bad = read_polls(source, max_bytes=len(line_of()) + 20)
        assert isinstance(first, RecordedPoll)
        assert isinstance(bad, BadLine)
        assert bad.reason.endswith(" of data; the rest of the file was not read")


def test_lines_without_a_poll_end_the_reading(tmp_path: Path) -> None:
    """A small file can hold a billion of them compressed. A hundred thousand between two polls are read."""
    path = tmp_path / "newlines"
    with gzip.open(path, "wb") as file:
        file.write(b"\n" * 99_999 + line_of() + b"\n" * 100_000 + line_of() + b"\n" * 200_000 + line_of())
    found, _ = read_measured(path)
    assert [item.number for item in found] == [100_000, 200_000, 300_001]
    assert found[-1] == BadLine(300_001, "no poll in the 100,000 lines before it; the rest of the file was not read")


def read_measured(path: Path) -> tuple[list[RecordedPoll | BadLine], int]:
    """Read a file; also return the largest number of bytes that this took in memory."""
    tracemalloc.start()
    try:
        with path.open("rb") as source:
            return list(read_polls(source)), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Recorded(NamedTuple):
    """A compressed recording of many polls, each of about 250 bytes."""

    content: bytes
    #: The file's size after each poll.
    ends: list[int]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Return a recording of 200 polls."""
    path, ends = tmp_path_factory.mktemp("recorded") / "a.jsonl.gz", []
    with RecordingFile(path) as file:
        for _ in range(200):
            file.write(line_of(server={"name": os.urandom(200).hex()}) + b"\n")
            ends.append(file.size)
    return Recorded(path.read_bytes(), ends)


def test_compressed_file_is_read_to_its_last_complete_line(recorded: Recorded) -> None:
    """Cut anywhere, as by a kill, it has every poll whose data is complete, and no error."""
    for cut in (*range(2, recorded.ends[3]), *range(recorded.ends[-1], len(recorded.content) + 1)):
        items = read(recorded.content[:cut])
        assert all(isinstance(item, RecordedPoll) for item in items)
        complete = sum(end <= cut for end in recorded.ends)
        assert len(items) in {complete, complete + 1}  # a line can be complete shortly before its data is


def test_segments_put_together_with_cat(recorded: Recorded) -> None:
    """Segments may follow each other if all but the last have their end mark; zero bytes between them are skipped."""
    unended = recorded.content[: recorded.ends[-1]]
    items = read(recorded.content + b"\0" * 100_000 + recorded.content + unended)
    assert [item.number for item in items if isinstance(item, RecordedPoll)] == [*range(1, 601)]


DAMAGE = [
    ("a segment without its end mark, and another", lambda file: file.content[: file.ends[149]] + file.content, 100),
    ("bytes changed", lambda file: file.content[: file.ends[149]] + b"\xff" * 9 + file.content[file.ends[150] :], 100),
    ("wrong checksum", lambda file: file.content[:-8] + bytes(8), 200),
    ("other data behind", lambda file: file.content + b"junk", 200),
]


@pytest.mark.parametrize(("damage", "least"), [case[1:] for case in DAMAGE], ids=[name for name, *_ in DAMAGE])
def test_damaged_data_ends_the_recording(recorded: Recorded, damage: Callable[[Recorded], bytes], least: int) -> None:
    """Polls before the damage are read, but not always the last few kB; one error names the line that was reached."""
    *polls, bad = read(damage(recorded))
    assert all(isinstance(poll, RecordedPoll) for poll in polls)
    assert least <= len(polls) <= least + 50
    assert bad == BadLine(len(polls) + 1, "the gzip data is damaged here; the rest of the file was not read")
