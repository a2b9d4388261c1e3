"""What each key does: from a selection and a key to the next selection, and what else is to happen."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import NamedTuple

from pgwatch_sessions.top.selection import Order, Page, Selection, follow, items, row_of
from pgwatch_sessions.top.view import FindingView, View

#: The keys as Textual names them, and what they do, for the help.
KEYS = (
    ("up, down", "select the row above or below; on other screens, scroll"),
    ("Page Up, Page Down", "move by a screen"),
    ("Tab", "go from the findings to the clients, and back"),
    ("Enter", "open the finding: its sessions, the likely cause, and what to do; or open the client's sessions"),
    ("Esc", "go back; on the first screen, remove the filter"),
    ("y or c", "copy the statement that ends the finding's sessions, and show it. It is never run"),
    ("/", "list only findings and clients that contain a text"),
    ("s", "sort the clients by the next order"),
    ("u", "list the sessions that are not judged, and why"),
    ("n, b", "go to the next server, or back"),
    ("p or Space", "pause, and go on"),
    ("?", "show this help"),
    ("q", "quit; on other screens, go back"),
    ("Ctrl-C", "quit"),
)


class Effect(Enum):
    """What happens besides the change of the selection."""

    NOTHING = auto()
    QUIT = auto()
    #: The statement of the opened finding goes to the clipboard.
    COPY = auto()
    #: The client's sessions are needed now.
    FETCH = auto()


class Pressed(NamedTuple):
    """The outcome of a key."""

    selection: Selection
    effect: Effect = Effect.NOTHING


def press(selection: Selection, key: str, view: View, *, character: str | None, rows: int) -> Pressed:
    """Return what the key does. `character` is what it types, if anything; `rows` is the height of the screen."""
    if key in {"ctrl+c", "ctrl+q"}:
        return Pressed(selection, Effect.QUIT)
    if selection.typing:
        return Pressed(_type(selection, key, character, view))
    jump = _JUMPS.get(key)
    if jump is not None:
        return Pressed(_move(selection, jump * (max(1, rows - 4) if "page" in key else 1), view))
    action = _ACTIONS.get(key)
    return action(selection, view) if action else Pressed(selection)


def _type(selection: Selection, key: str, character: str | None, view: View) -> Selection:
    match key:
        case "enter":
            return replace(selection, typing=False)
        case "escape":
            changed = replace(selection, typing=False, filter="")
        case "backspace" | "ctrl+h":
            changed = replace(selection, filter=selection.filter[:-1])
        case _ if character is not None and character.isprintable():
            changed = replace(selection, filter=selection.filter + character)
        case _:
            return selection
    return follow(changed, view)


def _move(selection: Selection, by: int, view: View) -> Selection:
    if selection.page is not Page.MAIN:
        return replace(selection, scroll=max(0, selection.scroll + by))
    rows = [item.id for item in items(selection, view)]
    position = rows.index(selection.row) if selection.row in rows else 0
    position = min(max(0, position + by), len(rows) - 1)
    return replace(selection, row=rows[position] if position > 0 else None)


def _other_section(selection: Selection, view: View) -> Pressed:
    listed = items(selection, view)
    kinds = {item.id: isinstance(item, FindingView) for item in listed}
    row = row_of(selection, view)
    here = kinds.get(row) if row is not None else None
    row = next((item.id for item in listed if kinds[item.id] is not here), row)
    first = bool(listed) and row == listed[0].id
    return Pressed(replace(selection, row=None if first else row) if selection.page is Page.MAIN else selection)


def _open(selection: Selection, view: View) -> Pressed:
    row = row_of(selection, view)
    item = next((item for item in items(selection, view) if item.id == row), None)
    if selection.page is not Page.MAIN or item is None:
        return Pressed(selection)
    if isinstance(item, FindingView):
        return Pressed(replace(selection, page=Page.FINDING, finding=item, scroll=0))
    return Pressed(replace(selection, page=Page.CLIENT, client=item.id, scroll=0), Effect.FETCH)


def _back(selection: Selection, view: View) -> Pressed:
    match selection.page:
        case Page.MAIN:
            return Pressed(follow(replace(selection, filter=""), view))
        case Page.STATEMENT:
            return Pressed(replace(selection, page=Page.FINDING, scroll=0))
        case _:
            return Pressed(replace(selection, page=Page.MAIN, finding=None, client=None, scroll=0))


def _copy(selection: Selection, view: View) -> Pressed:
    opened = selection if selection.finding is not None else _open(selection, view).selection
    if opened.finding is None or not opened.finding.terminate:
        return Pressed(selection)
    return Pressed(replace(opened, page=Page.STATEMENT, scroll=0), Effect.COPY)


def _server(step: int) -> Callable[[Selection, View], Pressed]:
    def switch(selection: Selection, view: View) -> Pressed:
        names = [server.name for server in view.servers]
        if selection.page is not Page.MAIN or selection.server not in names:
            return Pressed(selection)
        name = names[(names.index(selection.server) + step) % len(names)]
        return Pressed(follow(replace(selection, server=name, row=None), view))

    return switch


def _sort(selection: Selection, _: View) -> Pressed:
    orders = list(Order)
    return Pressed(replace(selection, order=orders[(orders.index(selection.order) + 1) % len(orders)]))


def _filter(selection: Selection, _: View) -> Pressed:
    return Pressed(replace(selection, typing=True) if selection.page is Page.MAIN else selection)


def _pause(selection: Selection, _: View) -> Pressed:
    return Pressed(replace(selection, paused=not selection.paused))


def _page(page: Page) -> Callable[[Selection, View], Pressed]:
    """Return the action that opens a page, and closes it if it is open."""

    def toggle(selection: Selection, view: View) -> Pressed:
        if selection.page is page:
            return _back(selection, view)
        return Pressed(replace(selection, page=page, finding=None, client=None, scroll=0))

    return toggle


def _quit(selection: Selection, view: View) -> Pressed:
    return Pressed(selection, Effect.QUIT) if selection.page is Page.MAIN else _back(selection, view)


_JUMPS: Mapping[str, int] = {
    "up": -1,
    "k": -1,
    "down": 1,
    "j": 1,
    "pageup": -1,
    "pagedown": 1,
    "home": -(10**6),
    "end": 10**6,
}
_ACTIONS: Mapping[str, Callable[[Selection, View], Pressed]] = {
    "tab": _other_section,
    "shift+tab": _other_section,
    "enter": _open,
    "escape": _back,
    "left": _back,
    "y": _copy,
    "c": _copy,
    "slash": _filter,
    "s": _sort,
    "n": _server(1),
    "b": _server(-1),
    "p": _pause,
    "space": _pause,
    "u": _page(Page.NOT_JUDGED),
    "question_mark": _page(Page.HELP),
    "f1": _page(Page.HELP),
    "q": _quit,
}
