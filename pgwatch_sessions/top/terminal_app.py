"""Draws the live view with Textual, and hands it the keys. Everything that is shown comes from `pages`.

Only the cells that have changed are sent to the terminal, and there are no animations, so that a slow line suffices.
The mouse stays with the terminal, so that text can be selected and copied as usual.
"""

import asyncio
import signal
from collections.abc import Callable
from itertools import zip_longest

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from pgwatch_sessions.terminal import Colour
from pgwatch_sessions.top.keys import Effect, press
from pgwatch_sessions.top.lines import Line, fit, line
from pgwatch_sessions.top.pages import screen, settled
from pgwatch_sessions.top.selection import Selection, follow
from pgwatch_sessions.top.trends import NO_TRENDS, remember
from pgwatch_sessions.top.view import ClientId, View

_STYLES = {
    None: Style(),
    Colour.BOLD: Style(bold=True),
    Colour.FAINT: Style(dim=True),
    Colour.RED: Style(color="red", bold=True),
    Colour.GREEN: Style(color="green"),
    Colour.YELLOW: Style(color="yellow"),
}
_REVERSE = Style(reverse=True)


class _Canvas(Widget, can_focus=True):
    """The whole screen as lines."""

    def __init__(self, press: Callable[[events.Key], None]) -> None:
        """`press` gets every key, before Textual's own bindings do."""
        super().__init__()
        self._press = press
        self._lines: list[Line] = []

    def draw(self, lines: list[Line]) -> None:
        """Replace the lines, and have the changed part of each drawn again."""
        changed = [
            Region(first, y, last - first, 1)
            for y, (old, new) in enumerate(zip_longest(self._lines, lines, fillvalue=line()))
            for first, last in [_changed_columns(old, new, self.size.width)]
            if first < last
        ]
        self._lines = lines
        if changed:
            self.refresh(*changed)

    def on_key(self, event: events.Key) -> None:
        """Take the key."""
        event.stop()
        self._press(event)

    def render_line(self, y: int) -> Strip:
        """Return one line for the terminal."""
        shown = self._lines[y] if y < len(self._lines) else line()
        strip = Strip([Segment(span.text, _style(span.colour, selected=shown.selected)) for span in shown.spans])
        return strip.adjust_cell_length(self.size.width, _style(None, selected=shown.selected))


def _changed_columns(old: Line, new: Line, width: int) -> tuple[int, int]:
    """Return the first column that has changed and the one after the last; the same two if nothing has.

    A line with characters that are not one column wide, or with another look, is drawn whole.
    """
    if old == new:
        return 0, 0
    same_look = old.selected == new.selected and [(len(span.text), span.colour) for span in old.spans] == [
        (len(span.text), span.colour) for span in new.spans
    ]
    if not same_look or not (old.text.isascii() and new.text.isascii()):
        return 0, width
    different = [column for column, (a, b) in enumerate(zip(old.text, new.text, strict=True)) if a != b]
    return different[0], different[-1] + 1


def _style(colour: Colour | None, *, selected: bool) -> Style:
    return _STYLES[colour] + _REVERSE if selected else _STYLES[colour]


class TopApp(App[None]):
    """The live view. `show` and `show_problem` give it what is new."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "Screen { background: ansi_default; } _Canvas { width: 100%; height: 100%; background: ansi_default; }"

    def __init__(self, view: View) -> None:
        """Show this view first."""
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self._view = view
        self._trends = remember(NO_TRENDS, view)
        self._selection = follow(Selection(), view)
        self._problem = ""
        self._canvas = _Canvas(self._press)
        #: Set when a view with the sessions of `opened` is needed at once.
        self.wanted = asyncio.Event()

    @property
    def opened(self) -> ClientId | None:
        """The client whose sessions are shown."""
        return self._selection.client

    def show(self, view: View) -> None:
        """Show a newer view; while paused, only the sessions of a client that was opened meanwhile."""
        self._trends = remember(self._trends, view)
        self._problem = ""
        if self._selection.paused and view.opened in {None, self._view.opened}:
            return
        self._view = view
        self._selection = follow(self._selection, view)
        self._draw()

    def show_problem(self, problem: str) -> None:
        """Show why there is no newer view, above the last one."""
        self._problem = problem
        self._draw()

    def compose(self) -> ComposeResult:
        """Fill the screen with lines."""
        yield self._canvas

    def on_mount(self) -> None:
        """Give the terminal back also if a signal ends the program, for example because the line is cut."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.exit)
        self._canvas.focus()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self._draw)

    def _press(self, event: events.Key) -> None:
        pressed = press(self._selection, event.key, self._view, character=event.character, rows=self._height)
        self._selection = settled(self._view, pressed.selection, columns=self._width, rows=self._height)
        match pressed.effect:
            case Effect.QUIT:
                self.exit()
            case Effect.COPY if self._selection.finding:
                self.copy_to_clipboard("\n".join(self._selection.finding.terminate))
            case Effect.FETCH:
                self.wanted.set()
        self._draw()

    def _draw(self) -> None:
        if self._height > 0:
            lines = screen(self._view, self._selection, self._trends, columns=self._width, rows=self._height)
            if self._problem:
                lines[0] = line(fit(self._problem, self._width), Colour.RED)
            self._canvas.draw(lines)

    @property
    def _width(self) -> int:
        return self._canvas.size.width

    @property
    def _height(self) -> int:
        return self._canvas.size.height
