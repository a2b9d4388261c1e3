"""Lines of a screen as values: coloured texts that fit into its columns."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pgwatch_sessions.terminal import Colour, columns_of

_ELLIPSIS = "…"


class Span(NamedTuple):
    """A text and its colour; None leaves the terminal's own."""

    text: str
    colour: Colour | None = None


class Line(NamedTuple):
    """One line of the screen, as wide as the screen or shorter."""

    spans: tuple[Span, ...]
    #: Whether the cursor is on it.
    selected: bool = False

    @property
    def text(self) -> str:
        """The line without colours."""
        return "".join(span.text for span in self.spans)


def line(text: str = "", colour: Colour | None = None, *, selected: bool = False) -> Line:
    """Return a line of one colour."""
    return Line((Span(text, colour),), selected)


def fit(text: str, columns: int, *, right: bool = False) -> str:
    """Return the text in exactly so many columns: cut with an ellipsis, or padded on the right or left."""
    if columns_of(text) > columns:
        text = _cut(text, columns - 1) + _ELLIPSIS if columns > 0 else ""
    padding = " " * (columns - columns_of(text))
    return padding + text if right else text + padding


def _cut(text: str, columns: int) -> str:
    width = 0
    for position, character in enumerate(text):
        width += columns_of(character)
        if width > columns:
            return text[:position]
    return text


def clipped(line: Line, columns: int) -> Line:
    """Return the line without what does not fit."""
    if columns_of(line.text) <= columns:
        return line
    spans = []
    for span in line.spans:
        spans.append(Span(_cut(span.text, columns), span.colour))
        columns -= columns_of(spans[-1].text)
    return Line(tuple(spans), line.selected)


def paragraph(text: str, columns: int, *, indent: str = "") -> Iterator[str]:
    """Yield the indented lines of a paragraph, broken at spaces. A word that is too long is broken anywhere."""
    room = max(1, columns - len(indent))
    shown = ""
    for word in text.split():
        if shown and columns_of(shown) + 1 + columns_of(word) > room:
            yield indent + shown
            shown = ""
        shown = f"{shown} {word}" if shown else word
        while columns_of(shown) > room:
            part = _cut(shown, room) or shown[0]
            yield indent + part
            shown = shown[len(part) :]
    yield indent + shown


def bar(used: int, capacity: int, columns: int) -> str:
    """Return a bar that is full only if all is used, and empty only if nothing is."""
    share = used / capacity if capacity > 0 else 1.0
    full = columns if share >= 1 else min(max(round(columns * share), used > 0), columns - 1)
    return f"[{'#' * full}{'.' * (columns - full)}]"


def window(heights: Sequence[int], selected: int | None, rows: int) -> range:
    """Return which items to show in so many rows, so that the selected one is among them."""
    if not heights:
        return range(0)
    last = 0 if selected is None else selected
    first, used = last, heights[last]
    while first > 0 and used + heights[first - 1] <= rows:
        first -= 1
        used += heights[first]
    while last + 1 < len(heights) and used + heights[last + 1] <= rows:
        last += 1
        used += heights[last]
    return range(first, last + 1)
