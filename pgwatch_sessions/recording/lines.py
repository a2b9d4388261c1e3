"""The lines of a file, plain or gzip, read in bounded memory."""

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader
from typing import NamedTuple

#: A poll of 10,000 sessions takes about 10 MB.
MAX_LINE_BYTES = 64 * 2**20

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


def read_lines(source: BufferedReader) -> Iterator[Line | BadLine]:
    """Yield the lines of a file. OSError if the system cannot read it.

    gzip data that ends without its end mark is read up to its last complete line: a killed daemon leaves such files.
    gzip data that is damaged ends with a BadLine.
    """
    stream = gzip.GzipFile(fileobj=source, mode="rb") if source.peek(2)[:2] == _GZIP_MAGIC else source
    number = 1
    try:
        while content := _next_line(stream):
            if len(content) > MAX_LINE_BYTES:
                yield BadLine(number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
            else:
                yield Line(number, content.removesuffix(b"\n"))
            number += 1
    except EOFError:
        return
    except (zlib.error, gzip.BadGzipFile):
        yield BadLine(number, "the gzip data is damaged here; the rest of the file was not read")


def _next_line(stream: BufferedReader | gzip.GzipFile) -> bytes | bytearray:
    """Return a line with its newline, nothing at the end of the file.

    A line that is too long is read to its end and returned in part.
    """
    line = stream.readline(_PIECE_BYTES)
    if len(line) < _PIECE_BYTES:
        return line
    long_line = bytearray(line)
    while not line.endswith(b"\n") and (line := stream.readline(_PIECE_BYTES)):
        if len(long_line) <= MAX_LINE_BYTES:
            long_line += line
    return long_line
