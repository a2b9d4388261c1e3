"""The pages behind the first one: a finding, a client's sessions, the statement, the help. They can be scrolled."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from pgwatch_sessions.terminal import Colour, columns_of
from pgwatch_sessions.top.keys import KEYS
from pgwatch_sessions.top.lines import Line, Span, clipped, fit, line, paragraph
from pgwatch_sessions.top.main_page import colour_of, main_page
from pgwatch_sessions.top.selection import Order, Page, Selection, row_of, server_of
from pgwatch_sessions.top.trends import Trends
from pgwatch_sessions.top.view import FindingView, SessionView, View
from pgwatch_sessions.wording.amounts import counted, duration
from pgwatch_sessions.wording.labels import client_name
from pgwatch_sessions.wording.termination import PRIVILEGE

#: Sessions above the advice; the others are below it.
_FIRST_SESSIONS = 5
_FOOTER = "Esc back  Up, Down scroll"
_COLUMNS_OF_KEYS = 20


def screen(view: View, selection: Selection, trends: Trends, *, columns: int, rows: int) -> list[Line]:
    """Return the lines of the screen."""
    if selection.page is Page.MAIN:
        lines = main_page(view, replace(selection, row=row_of(selection, view)), trends, columns=columns, rows=rows)
    else:
        lines = _page(view, selection, columns=columns, rows=rows)
    return [clipped(each, columns) for each in lines]


def _page(view: View, selection: Selection, *, columns: int, rows: int) -> list[Line]:
    lines = list(_PAGES[selection.page](view, selection, columns))
    first = _last_scroll(selection, lines, rows)
    shown = lines[first : first + rows - 1]
    hidden = len(lines) - first - len(shown)
    more = f"  ({counted(hidden, 'more line')} below)" if hidden else ""
    keys = f"{_FOOTER}  y copy SQL{more}" if selection.page is Page.FINDING else f"{_FOOTER}{more}"
    blank = [line()] * (rows - 1 - len(shown))
    return [*shown, *blank, line(fit(keys, columns), Colour.FAINT)]


def settled(view: View, selection: Selection, *, columns: int, rows: int) -> Selection:
    """Return the selection, not scrolled beyond the end of its page."""
    if selection.page is Page.MAIN:
        return selection
    lines = list(_PAGES[selection.page](view, selection, columns))
    return replace(selection, scroll=_last_scroll(selection, lines, rows))


def _last_scroll(selection: Selection, lines: Sequence[Line], rows: int) -> int:
    return max(0, min(selection.scroll, len(lines) - (rows - 1)))


def _finding(view: View, selection: Selection, columns: int) -> Iterator[Line]:
    finding = selection.finding
    if finding is None:
        return
    label = Span(finding.label, colour_of(finding))
    yield Line((label, Span(fit(f"  on {finding.server}", columns - len(finding.label)), Colour.BOLD)))
    yield from map(line, paragraph(finding.sentence, columns))
    if all(each.id != finding.id for each in view.findings):
        yield line("This finding is closed: its sessions have ended or are used again.", Colour.GREEN)
    yield line()
    first, others = finding.sessions[:_FIRST_SESSIONS], finding.sessions[_FIRST_SESSIONS:]
    below = f", {len(others)} of them below" if others else ""
    yield line(f"{counted(finding.session_count, 'session')}{below}", Colour.BOLD)
    yield from _sessions(first, columns)
    yield from _advice(finding, columns)
    if others:
        yield line()
        yield line("more sessions", Colour.BOLD)
        yield from _sessions(others, columns)
    missing = finding.session_count - len(finding.sessions)
    if missing > 0:
        yield line(f"and {missing:,} more")


def _advice(finding: FindingView, columns: int) -> Iterator[Line]:
    for title, paragraphs in (("likely cause", (finding.cause,)), ("what to do", finding.steps)):
        yield line()
        yield line(title, Colour.BOLD)
        for text in paragraphs:
            yield from map(line, paragraph(text, columns, indent="  "))
    if finding.terminate:
        yield line()
        yield line("to terminate the sessions, run in psql (y copies it)", Colour.BOLD)
        yield from _sql(finding, columns)
    yield line()
    yield Line((Span("runbook", Colour.BOLD), Span(f"  {finding.runbook}")))


def _statement(_: View, selection: Selection, columns: int) -> Iterator[Line]:
    if selection.finding is not None:
        yield from _sql(selection.finding, columns)
        yield line()
        for text in (
            (
                "Sent to the clipboard. If your terminal does not take it (OSC 52), copy the lines above by hand, or "
                "use `pgwatch-sessions terminate-sql`."
            ),
            f"Run it in psql to end these sessions; nothing was ended yet. {PRIVILEGE}",
        ):
            yield from map(line, paragraph(text, columns))


def _sql(finding: FindingView, columns: int) -> Iterator[Line]:
    """Yield the statement without a margin, so that it can be copied; lines that are too long are broken at spaces."""
    for text in finding.terminate:
        yield from map(line, [text] if columns_of(text) <= columns else paragraph(text, columns))


def _client(view: View, selection: Selection, columns: int) -> Iterator[Line]:
    client = selection.client
    if client is None:
        return
    yield line(fit(f"{client_name(client.client)} on {client.server}", columns), Colour.BOLD)
    if view.opened != client:
        yield line("reading its sessions ...")
        return
    yield line(counted(len(view.opened_sessions), "session"))
    yield from _sessions(view.opened_sessions, columns)


def _sessions(sessions: Sequence[SessionView], columns: int) -> Iterator[Line]:
    for session in sessions:
        held = "?" if session.seconds is None else duration(session.seconds)
        head = f"{session.pid:>8}  {fit(held, 8, right=True)}  {fit(session.state, 19)}  {fit(session.address, 15)}  "
        yield line(fit(head + session.statement, columns))


def _not_judged(view: View, selection: Selection, columns: int) -> Iterator[Line]:
    server = server_of(selection, view)
    yield line("Sessions that are not judged, and why", Colour.BOLD)
    for text in server.not_judged if server else ():
        yield line()
        yield from map(line, paragraph(text, columns))
    if not (server and server.not_judged):
        yield line("None.")


def _help(_: View, __: Selection, columns: int) -> Iterator[Line]:
    yield line("Keys", Colour.BOLD)
    for keys, meaning in KEYS:
        first, *others = paragraph(meaning, columns - _COLUMNS_OF_KEYS)
        yield Line((Span(fit(keys, _COLUMNS_OF_KEYS), Colour.BOLD), Span(first)))
        yield from (line(" " * _COLUMNS_OF_KEYS + text) for text in others)
    yield line()
    orders = ", ".join(Order)
    yield from map(line, paragraph(f"Orders of the clients: {orders}.", columns))
    text = (
        "The bars show the highest number in each part of the last five minutes: of all sessions, and of those idle in "
        "transaction (in tx). oldest is the longest time idle in transaction."
    )
    yield from map(line, paragraph(text, columns))


_PAGES: Mapping[Page, Callable[[View, Selection, int], Iterator[Line]]] = {
    Page.FINDING: _finding,
    Page.CLIENT: _client,
    Page.STATEMENT: _statement,
    Page.NOT_JUDGED: _not_judged,
    Page.HELP: _help,
}
