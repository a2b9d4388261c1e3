from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.model import Client
from pgwatch_sessions.terminal import Colour, columns_of
from pgwatch_sessions.top.lines import bar, fit, window
from pgwatch_sessions.top.pages import screen, settled
from pgwatch_sessions.top.selection import Order, Page, Selection, follow
from pgwatch_sessions.top.trends import NO_TRENDS, remember
from pgwatch_sessions.top.view import ClientId, View
from tests.support.states import REFUSED, SERVER, after, leaking
from tests.support.values import ORDERS, session, snapshot
from tests.top.views import view

WIDE = Client("shop", "app", "注文サービス")
LONG = Client("a" * 60, "b" * 60, "c" * 60)
VIEWS = [
    view(state)
    for state in (leaking(), leaking(client=WIDE, server="a"), leaking(client=LONG, server="b"), after(server="c"))
]


def drawn(shown: View, selection: Selection | None = None, *, columns: int = 80, rows: int = 24) -> str:
    """Return the screen as text."""
    chosen = follow(selection or Selection(), shown)
    return "\n".join(
        each.text.rstrip() for each in screen(shown, chosen, remember(NO_TRENDS, shown), columns=columns, rows=rows)
    )


def test_the_first_page_has_everything_at_80_columns() -> None:
    """The headline first, then limits, findings and clients, and the keys last."""
    lines = drawn(view(leaking())).splitlines()
    assert lines[0] == view(leaking()).headline
    assert lines[1].startswith("orders-db  leaking (")
    assert lines[1].endswith(" polled 08:06:30 UTC")
    assert lines[2].startswith("the server [####")
    assert lines[3].startswith("role app   [####")
    assert "full in " in lines[3]
    assert lines[4] == "Findings: 1"
    assert lines[5].startswith("> CRITICAL    orders (shop, app): ")
    clients = lines.index(next(line for line in lines if line.startswith("  Clients: 2")))
    assert lines[clients].split()[2:] == [
        "total",
        "5",
        "min",
        "active",
        "idle",
        "in",
        "tx",
        "5",
        "min",
        "oldest",
        "diagnosis",
    ]
    assert lines[clients + 1].startswith("  orders (shop, app)")
    assert lines[clients + 1].endswith("6 min leaking")
    assert lines[clients + 2].startswith("  checkout (shop, web)")
    assert (len(lines), lines[-1].split()[0]) == (24, "Enter")


@pytest.mark.parametrize("page", Page)
@given(columns=st.integers(40, 200), rows=st.integers(5, 60))
def test_no_line_is_wider_than_the_screen(page: Page, columns: int, rows: int) -> None:
    """Whatever names clients choose, wide characters included."""
    for shown in VIEWS:
        finding = next(iter(shown.findings), None)
        opened = ClientId(shown.servers[0].name, LONG)
        chosen = follow(Selection(page=page, finding=finding, client=opened), shown)
        lines = screen(shown, chosen, NO_TRENDS, columns=columns, rows=rows)
        assert len(lines) == rows
        assert max(columns_of(line.text) for line in lines) <= columns


def test_an_outage_comes_with_its_reason() -> None:
    """The findings stay, because their sessions may still be there."""
    text = drawn(view(leaking(REFUSED)))
    assert "\nCannot poll: it has no free connection slot" in text
    assert "\nFindings: 1\n" in text


def test_hidden_sessions_are_said_and_not_counted() -> None:
    """A question mark stands for what cannot be seen."""
    text = drawn(view(after(snapshot(session(1, None), session(2), server=SERVER))))
    assert "hidden from the monitoring role" in text
    assert text.splitlines()[-2:][0] == "" or "?" in text
    assert "1 hidden" in text


def test_what_is_not_judged_is_listed() -> None:
    """Two sentences on the first page, all of them with u."""
    shown = view(leaking())
    texts = tuple(f"psql ({number}): a console" for number in range(3))
    shown = replace(shown, servers=tuple(replace(server, not_judged=texts) for server in shown.servers))
    assert "\nNot judged (3; u shows all)\n  psql (0): a console\n  psql (1): a console\n\n" in drawn(shown)
    assert all(text in drawn(shown, Selection(page=Page.NOT_JUDGED)) for text in texts)


def test_many_findings_scroll_and_leave_room_for_clients() -> None:
    """The selected one is always among those that are shown."""
    shown = view(leaking())
    (finding,) = shown.findings
    many = replace(shown, findings=tuple(replace(finding, id=f"leak-{number}") for number in range(40)))
    text = drawn(many, Selection(row="leak-39"))
    assert "Findings: 40, " in text
    assert " to 40 shown" in text
    assert "> CRITICAL" in text
    assert "Clients: 2" in text
    assert "checkout" in text


def test_a_finding_page_has_sessions_cause_steps_sql_and_runbook() -> None:
    """All of it can be reached by scrolling; a finding that has closed says so."""
    shown = view(leaking())
    (finding,) = shown.findings
    opened = Selection(page=Page.FINDING, finding=finding)
    text = drawn(shown, opened, rows=200)
    order = ("sessions, ", "likely cause", "what to do", "to terminate the sessions", "runbook", "more sessions")
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert finding.cause in " ".join(text.split())
    assert all(f"{each.pid} " in text for each in finding.sessions)
    assert "This finding is closed" not in text
    assert "This finding is closed" in drawn(replace(shown, findings=()), opened)


def test_scrolling_ends_with_the_page() -> None:
    """After End, one press of Up moves the page."""
    shown = view(leaking())
    far = Selection(page=Page.FINDING, finding=shown.findings[0], scroll=10**6)
    last = settled(shown, far, columns=80, rows=24)
    assert 0 < last.scroll < 200
    assert "more line" not in drawn(shown, last)


def test_the_statement_is_shown_as_it_is_copied() -> None:
    """Without a margin, so that it can be copied by hand."""
    shown = view(leaking())
    text = drawn(shown, Selection(page=Page.STATEMENT, finding=shown.findings[0]), rows=60)
    assert text.startswith("\n".join(shown.findings[0].terminate) + "\n\nSent to the clipboard")


def test_an_opened_client_has_its_sessions() -> None:
    """Until they have been read, the page says that they are being read."""
    opened = ClientId("orders-db", ORDERS)
    selection = Selection(page=Page.CLIENT, client=opened)
    assert "reading its sessions" in drawn(view(leaking()), selection)
    text = drawn(view(leaking(), opened=opened), selection)
    assert "\n     100     6 min  idle in transaction  10.0.0.7" in text


def test_the_filter_and_the_pause_are_shown() -> None:
    """Nobody takes a part for the whole, or old numbers for new ones."""
    text = drawn(view(leaking()), Selection(filter="checkout", paused=True))
    assert "PAUSED" in text
    assert "filter: checkout" in text
    assert "No finding" in text
    assert "Clients: 1" in text


@pytest.mark.parametrize("order", Order)
def test_clients_are_sorted(order: Order) -> None:
    """Every order puts the client first that it is about."""
    text = drawn(view(leaking()), Selection(order=order))
    assert (text.index("checkout (shop") < text.index("\n  orders (shop")) == (order is Order.NAME)


def test_severities_and_limits_have_colours() -> None:
    """The colours repeat what the words say."""
    shown = view(leaking())
    lines = screen(shown, follow(Selection(), shown), NO_TRENDS, columns=80, rows=24)
    colours = {span.text.strip(): span.colour for line in lines for span in line.spans}
    assert colours["CRITICAL"] is Colour.RED
    assert colours[shown.headline] is Colour.RED


@given(st.text(), st.integers(0, 40), st.booleans())
def test_a_cell_is_exactly_as_wide_as_its_column(text: str, columns: int, right: bool) -> None:
    """Texts are cut or padded."""
    printable = "".join(each for each in text if each.isprintable())
    assert columns_of(fit(printable, columns, right=right)) == columns


def test_a_bar_is_full_only_when_nothing_is_left() -> None:
    """It never exceeds its width."""
    assert bar(0, 10, 10) == "[..........]"
    assert bar(12, 10, 10) == "[##########]"
    assert bar(999, 1000, 10) == "[#########.]"
    assert bar(1, 1000, 10) == "[#.........]"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.integers(4, 20), st.data())
def test_the_selected_row_is_always_shown(heights: list[int], rows: int, data: st.DataObject) -> None:
    """And no more rows than there is room for."""
    selected = data.draw(st.integers(0, len(heights) - 1))
    shown = window(heights, selected, rows)
    assert selected in shown
    assert sum(heights[index] for index in shown) <= rows
