"""The lines of a file, plain or gzip, read in bounded memory and time."""

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader
from typing import NamedTuple

#: A poll of 10,000 sessions takes about 10 MB. To parse a line of this length, made to do harm, takes 500 MB.
MAX_LINE_BYTES = 16 * 2**20
#: What is read of a file, after decompression. A day of 5,000 sessions, polled every 10 s, takes about 40 GiB.
MAX_FILE_BYTES = 64 * 2**30

NOT_READ = "the rest of the file was not read"

_PIECE_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"


class Line(NamedTuple):
    """A line without its newline."""

    #: The first line is 1.
    number: int
    content: bytes | bytearray


class BadLine(NamedTuple):
    """A line that cannot be used."""

    #: The first line is 1.
    number: int
    #: What is wrong with it, without quoting anything from the file.
    reason: str


def read_lines(source: BufferedReader, *, max_bytes: int = MAX_FILE_BYTES) -> Iterator[Line | BadLine]:
    """Yield the lines of a file. OSError if the system cannot read it. Reading stops after `max_bytes`.

    gzip data that ends without its end mark is read up to its last complete line: a killed daemon leaves such files.
    gzip data that is damaged ends with a BadLine.
    """
    stream = gzip.GzipFile(fileobj=source, mode="rb") if source.peek(2)[:2] == _GZIP_MAGIC else source
    number, unread = 1, max_bytes
    try:
        while (content := _next_line(stream, unread)).size:
            unread -= content.size
            if unread <= 0:
                yield BadLine(number, f"more than {_size(max_bytes)} of data; {NOT_READ}")
                return
            if content.size > MAX_LINE_BYTES:
                yield BadLine(number, f"longer than {_size(MAX_LINE_BYTES)}")
            else:
                yield Line(number, content.bytes.removesuffix(b"\n"))
            number += 1
    except EOFError:
        return
    except (zlib.error, gzip.BadGzipFile):
        yield BadLine(number, f"the gzip data is damaged here; {NOT_READ}")


class _Content(NamedTuple):
    """A line with its newline; empty at the end of the file."""

    #: In part if the line is too long.
    bytes: bytes | bytearray
    #: Bytes of the whole line.
    size: int


def _next_line(stream: BufferedReader | gzip.GzipFile, max_bytes: int) -> _Content:
    """Read a line to its end, or until it has `max_bytes`."""
    piece = stream.readline(_PIECE_BYTES)
    if len(piece) < _PIECE_BYTES:
        return _Content(piece, len(piece))
    line, size = bytearray(piece), len(piece)
    while not piece.endswith(b"\n") and size < max_bytes and (piece := stream.readline(_PIECE_BYTES)):
        size += len(piece)
        if size <= MAX_LINE_BYTES:
            line += piece
    return _Content(line, size)


def _size(number: int) -> str:
    return f"{number >> 30} GiB" if number >= 2**30 else f"{number >> 20} MiB"
