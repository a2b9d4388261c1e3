"""Lines of a file, plain or gzip, in bounded memory and whatever the file holds.

A gzip file may be several one after the other, each of which may lack its end: what `cat` makes of the segments of a
daemon that was killed. Where the data is damaged, reading goes on at the next gzip header.
"""

import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO, NamedTuple

#: A look at 10,000 sessions takes about 10 MB.
MAX_LINE_BYTES = 64 * 2**20

_PIECE_BYTES = 2**16
#: One compressed piece may hold a thousand times its size.
_INFLATED_BYTES = 2**20
_GZIP = zlib.MAX_WBITS | 16
_HEADER = b"\x1f\x8b\x08"
#: What a flush leaves behind: data that ends so lacks its end but no line (Z_SYNC_FLUSH in zlib.h).
_FLUSHED = b"\x00\x00\xff\xff"


class BadLine(NamedTuple):
    """A line that says nothing usable."""

    #: From 1. After damaged gzip data the lines that could be read are counted.
    number: int
    #: One line for a human that quotes nothing of the file.
    reason: str


class Line(NamedTuple):
    """A line without its end."""

    number: int
    content: bytes


class _Damage(NamedTuple):
    """Stands where data is missing."""

    reason: str


def read_lines(source: BinaryIO) -> Iterator[Line | BadLine]:
    """Yield the lines; raises only what reading from the source raises."""
    number, size = 0, 0
    parts: list[bytes] = []
    for piece in _pieces(source):
        if isinstance(piece, _Damage):
            number, size = number + 1, 0
            parts.clear()
            yield BadLine(number, piece.reason)
            continue
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            number, size = number + 1, size + end - start
            parts.append(piece[start:end])
            yield _line(number, parts, size)
            size, start = 0, end + 1
            parts.clear()
        size += len(piece) - start
        if size > MAX_LINE_BYTES:
            parts.clear()
        elif start < len(piece):
            parts.append(piece[start:])
    if size:
        yield _line(number + 1, parts, size)


def _line(number: int, parts: list[bytes], size: int) -> Line | BadLine:
    if size > MAX_LINE_BYTES:
        return BadLine(number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
    return Line(number, b"".join(parts))


def _pieces(source: BinaryIO) -> Iterator[bytes | _Damage]:
    piece = source.read(_PIECE_BYTES)
    if _HEADER.startswith(piece[:2]):
        yield from _inflated(piece, source)
        return
    while piece:
        yield piece
        piece = source.read(_PIECE_BYTES)


def _inflated(piece: bytes, source: BinaryIO) -> Iterator[bytes | _Damage]:
    inflater, done = zlib.decompressobj(_GZIP), b""  # and the last bytes of what it was given
    while piece:
        before = inflater.copy()
        try:
            yield inflater.decompress(piece, _INFLATED_BYTES)
        except zlib.error:
            intact = yield from _salvaged(before, piece)
            if _last(done, piece[:intact]) != _FLUSHED or not piece.startswith(_HEADER, intact):
                yield _Damage("the gzip data is damaged")
                intact = 0 if done else 1  # the next header may stand before what could not be read
            piece = _next_header(piece[intact:], source)
            inflater, done = zlib.decompressobj(_GZIP), b""
            continue
        done = _last(done, piece[: len(piece) - len(inflater.unconsumed_tail)])
        piece = inflater.unconsumed_tail
        if inflater.eof:
            piece = _without_padding(inflater.unused_data, source)
            inflater, done = zlib.decompressobj(_GZIP), b""
        piece = piece or source.read(_PIECE_BYTES)
    yield inflater.flush()
    if done not in (b"", _FLUSHED):
        yield _Damage("the gzip data ends too early")


def _last(done: bytes, more: bytes) -> bytes:
    return (done + more[-len(_FLUSHED) :])[-len(_FLUSHED) :]


def _salvaged(before: "zlib._Decompress", piece: bytes) -> Generator[bytes, None, int]:
    """Inflate what stands before the damage, byte by byte; return how much that is."""
    for position in range(len(piece)):
        try:
            yield before.decompress(piece[position : position + 1])
        except zlib.error:
            return position
    return len(piece)


def _next_header(piece: bytes, source: BinaryIO) -> bytes:
    """Return what follows from the next gzip header on; nothing at the end."""
    while (start := piece.find(_HEADER)) < 0:
        more = source.read(_PIECE_BYTES)
        if not more:
            return b""
        piece = piece[1 - len(_HEADER) :] + more
    return piece[start:]


def _without_padding(piece: bytes, source: BinaryIO) -> bytes:
    """Skip the zero bytes that a tape or a block device leaves after the end, as gzip itself does."""
    piece = piece.lstrip(b"\0")
    while not piece and (more := source.read(_PIECE_BYTES)):
        piece = more.lstrip(b"\0")
    return piece
