"""The first page: what is wrong, how full the limits are, the findings, and the clients."""

from collections.abc import Iterator, Sequence

from pgwatch_sessions.terminal import SEVERITY_COLOURS, TONE_COLOURS, Colour
from pgwatch_sessions.top.lines import Line, Span, bar, fit, line, paragraph, window
from pgwatch_sessions.top.selection import Item, Selection, clients, findings, server_of
from pgwatch_sessions.top.trends import Trends, sparkline
from pgwatch_sessions.top.view import ClientView, FindingView, LimitView, ServerView, View
from pgwatch_sessions.wording.amounts import duration
from pgwatch_sessions.wording.labels import client_name
from pgwatch_sessions.wording.sentences import folded_text, hidden_text

#: Limits that are shown: the server's own, and the fullest.
_MAX_LIMITS = 4
#: Sentences on what is not judged.
_MAX_NOT_JUDGED = 2
#: Lines of one finding, and of the headline. The opened finding shows all of its sentence.
_MAX_SENTENCE = 3
_MAX_HEADLINE = 2
#: The widths of the columns with numbers and words. Names and sparklines share what is left.
_TOTAL, _ACTIVE, _IDLE, _IN_TRANSACTION, _AGE, _VERDICT = 5, 6, 5, 5, 7, 9
_GAPS = 8
#: As long as `recovering`.
_LABEL = 10
_MARK = "> "
_KEYS = "Enter open  y copy SQL  / filter  s sort  p pause  n next server  ? help  q quit"


def main_page(view: View, selection: Selection, trends: Trends, *, columns: int, rows: int) -> list[Line]:
    """Return the lines of the page, at most `rows` of at most `columns` characters."""
    server = server_of(selection, view)
    top = [*_headline(view, columns), *_server_lines(server, view, selection, columns)]
    footer = _footer(selection, columns)
    room = rows - len(top) - 1
    found = list(findings(selection, view))
    heights = [list(_finding(each, selection, columns)) for each in found]
    listed = clients(selection, view)
    # The findings come first, but leave the clients a few lines.
    reserved = min(len(listed), 3) + 2
    section = _findings_section(heights, _index(found, selection), max(2, room - reserved), columns)
    unjudged = _not_judged(server, columns) if room - len(section) > reserved + _MAX_NOT_JUDGED else []
    rest = room - len(section) - len(unjudged)
    others = _clients_section(listed, selection, trends, columns=columns, rows=rest)
    lines = [*top, *section, *unjudged, *others][: rows - 1]
    return [*lines, *[line()] * (rows - 1 - len(lines)), footer]


def _headline(view: View, columns: int) -> Iterator[Line]:
    lines = list(paragraph(view.headline, columns))
    if len(lines) > _MAX_HEADLINE:
        lines[_MAX_HEADLINE - 1] = fit(" ".join(lines[_MAX_HEADLINE - 1 :]), columns)
    yield from (line(text, TONE_COLOURS.get(view.tone)) for text in lines[:_MAX_HEADLINE])


def _server_lines(server: ServerView | None, view: View, selection: Selection, columns: int) -> Iterator[Line]:
    if server is None:
        return
    names = [each.name for each in view.servers]
    number = f" ({names.index(server.name) + 1} of {len(names)})" if len(names) > 1 else ""
    verdict = f"  {server.verdict}" if server.verdict else ""
    reason = f" ({server.reason})" if server.verdict and server.reason else ""
    when = "PAUSED " if selection.paused else ""
    when += "not polled yet" if server.polled_at is None else f"polled {clock(server.polled_at)}"
    left = fit(f"{server.name}{number}{verdict}{reason}", columns - len(when) - 1)
    yield Line((Span(left, Colour.BOLD), Span(f" {when}", Colour.YELLOW if selection.paused else None)))
    if server.failure:
        yield from (line(text, Colour.RED) for text in paragraph(f"Cannot poll: {server.failure}", columns))
    if server.hidden:
        yield line(
            fit(hidden_text(server.hidden, server.sessions), columns).rstrip(),
            Colour.YELLOW,
        )
    if server.folded:
        yield line(fit(folded_text(server.folded), columns).rstrip(), Colour.YELLOW)
    yield from (_limit(limit, server.limits[:_MAX_LIMITS], columns) for limit in server.limits[:_MAX_LIMITS])


def _limit(limit: LimitView, shown: Sequence[LimitView], columns: int) -> Line:
    name = min(max(len(each.name) for each in shown), 20)
    widest = max(len(f"{each.used:,}") for each in shown)
    figures = f"{limit.used:>{widest},} of {limit.capacity:,}"
    reached = f"  full {limit.reached}" if limit.reached.startswith(("in ", "now")) else ""
    width = max(10, min(40, columns - name - 16 - 16))
    share = limit.used / limit.capacity if limit.capacity else 1.0
    colour = Colour.RED if share >= 0.9 else Colour.YELLOW if share >= 0.75 else None
    return Line(
        (
            Span(f"{fit(limit.name, name)} "),
            Span(bar(limit.used, limit.capacity, width), colour),
            Span(f" {figures}"),
            Span(reached, Colour.RED),
        )
    )


def _finding(finding: FindingView, selection: Selection, columns: int) -> Iterator[Line]:
    selected = finding.id == selection.row
    mark = _MARK if selected else " " * len(_MARK)
    label = f"{finding.label:<{_LABEL}}"
    indent = len(mark) + len(label) + 2
    lines = list(paragraph(finding.sentence, columns - indent))
    if len(lines) > _MAX_SENTENCE:
        lines[_MAX_SENTENCE - 1] = fit(" ".join(lines[_MAX_SENTENCE - 1 :]), columns - indent)
    for number, part in enumerate(lines[:_MAX_SENTENCE]):
        head = (Span(mark), Span(label, colour_of(finding)), Span("  ")) if number == 0 else (Span(" " * indent),)
        yield Line((*head, Span(fit(part, columns - indent))), selected)


def colour_of(finding: FindingView) -> Colour | None:
    """Return the colour of a finding's label."""
    return SEVERITY_COLOURS[finding.severity] if finding.session_count else None


def _findings_section(found: Sequence[Sequence[Line]], selected: int | None, rows: int, columns: int) -> list[Line]:
    shown = window([len(each) for each in found], selected, rows - 1)
    title = f"Findings: {len(found)}" if found else "No finding"
    more = f", {shown.start + 1} to {shown.stop} shown" if len(shown) < len(found) else ""
    return [line(fit(title + more, columns), Colour.BOLD), *(each for index in shown for each in found[index])]


def _not_judged(server: ServerView | None, columns: int) -> list[Line]:
    """Return the first sentences on what is not judged; a page of its own has all."""
    texts = server.not_judged if server else ()
    all_of_them = f" ({len(texts)}; u shows all)" if len(texts) > _MAX_NOT_JUDGED else " (u shows why)"
    title = [line(fit(f"Not judged{all_of_them}", columns), Colour.BOLD)] if texts else []
    return [*title, *(line(f"  {fit(text, columns - 2)}") for text in texts[:_MAX_NOT_JUDGED])]


def _clients_section(
    listed: Sequence[ClientView], selection: Selection, trends: Trends, *, columns: int, rows: int
) -> Iterator[Line]:
    if rows < 3:
        return
    yield line()
    widths = _Widths(columns)
    yield line(widths.row(f"Clients: {len(listed)}", "", _HEADER), Colour.BOLD)
    shown = window([1] * len(listed), _index(listed, selection), rows - 2)
    yield from (_client(listed[index], selection, trends, widths) for index in shown)


_HEADER = ("total", "5 min", "active", "idle", "in tx", "5 min", "oldest", "diagnosis")


class _Widths:
    """The widths of the columns: what numbers do not need is shared by name and sparklines."""

    def __init__(self, columns: int) -> None:
        spare = columns - len(_MARK) - _TOTAL - _ACTIVE - _IDLE - _IN_TRANSACTION - _AGE - _VERDICT - _GAPS
        self.sparkline = max(5, min(30, spare // 5))
        self.name = max(8, spare - 2 * self.sparkline)

    def row(self, name: str, mark: str, cells: Sequence[str]) -> str:
        """Return one row of the table."""
        total, trend, active, idle, held, held_trend, oldest, verdict = cells
        return " ".join(
            (
                fit(mark, len(_MARK)) + fit(name, self.name),
                fit(total, _TOTAL, right=True),
                fit(trend, self.sparkline),
                fit(active, _ACTIVE, right=True),
                fit(idle, _IDLE, right=True),
                fit(held, _IN_TRANSACTION, right=True),
                fit(held_trend, self.sparkline),
                fit(oldest, _AGE, right=True),
                fit(verdict, _VERDICT),
            )
        )


def _client(client: ClientView, selection: Selection, trends: Trends, widths: _Widths) -> Line:
    samples = trends.get(client.id, ())
    selected = client.id == selection.row
    seconds = client.in_transaction_seconds
    cells = (
        f"{client.sessions:,}",
        sparkline([(sample.at, sample.sessions) for sample in samples], columns=widths.sparkline),
        _number(client.active),
        _number(client.idle),
        _number(client.in_transaction),
        sparkline([(sample.at, sample.in_transaction) for sample in samples], columns=widths.sparkline),
        "" if seconds is None else duration(seconds),
        f"{client.hidden:,} hidden" if client.hidden else client.verdict,
    )
    text = widths.row(client_name(client.id.client), _MARK if selected else "", cells)
    return line(text, None if client.is_healthy else Colour.YELLOW, selected=selected)


def _number(number: int | None) -> str:
    return "?" if number is None else f"{number:,}" if number else "-"


def _index(listed: Sequence[Item], selection: Selection) -> int | None:
    return next((index for index, item in enumerate(listed) if item.id == selection.row), None)


def _footer(selection: Selection, columns: int) -> Line:
    if selection.typing:
        return line(fit(f"filter: {selection.filter}_  (Enter keeps it, Esc removes it)", columns), Colour.BOLD)
    chosen = f"filter: {selection.filter} (Esc removes it)  " if selection.filter else ""
    return line(fit(f"{chosen}{_KEYS}", columns), Colour.FAINT)


def clock(seconds: float) -> str:
    """Return the time of day in UTC: `03:04:05 UTC`."""
    minutes, second = divmod(int(seconds) % 86400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02} UTC"
