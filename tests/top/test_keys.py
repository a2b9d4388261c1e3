from dataclasses import replace

import pytest

from pgwatch_sessions.top.keys import Effect, Pressed, press
from pgwatch_sessions.top.selection import Order, Page, Selection, follow, row_of
from pgwatch_sessions.top.view import ClientId, View
from tests.support.states import after, leaking
from tests.support.values import ORDERS
from tests.top.views import view

SHOWN = view(leaking())
FINDING = SHOWN.findings[0]


def pressed(*keys: str, selection: Selection | None = None, shown: View = SHOWN) -> Pressed:
    """Return the outcome of the last of these keys."""
    outcome = Pressed(follow(selection or Selection(), shown))
    for key in keys:
        character = key if len(key) == 1 else None
        outcome = press(outcome.selection, key, shown, character=character, rows=24)
    return outcome


def test_the_worst_finding_is_selected_first() -> None:
    """Of several servers, the one with the worst finding."""
    shown = view(after(server="calm-db"), leaking())
    chosen = follow(Selection(), shown)
    assert (chosen.server, row_of(chosen, shown)) == ("orders-db", FINDING.id)


def test_a_finding_that_opens_is_selected_unless_a_row_was_chosen() -> None:
    """Who watches a healthy server needs one key to open what went wrong."""
    healthy = replace(SHOWN, findings=())
    assert row_of(follow(pressed(shown=healthy).selection, SHOWN), SHOWN) == FINDING.id
    chosen = pressed("down", shown=healthy).selection
    assert row_of(follow(chosen, SHOWN), SHOWN) == chosen.row != FINDING.id


def test_down_goes_through_findings_and_clients_and_stops_at_the_end() -> None:
    """There is one list of rows."""
    rows = [row_of(pressed(*["down"] * times).selection, SHOWN) for times in range(4)]
    checkout = rows[2]
    assert rows == [FINDING.id, ClientId("orders-db", ORDERS), checkout, checkout]
    assert pressed("pagedown").selection.row == checkout
    assert pressed("pagedown", "home") == pressed()


def test_tab_goes_to_the_clients_and_back() -> None:
    """To the first row of each."""
    assert pressed("tab").selection.row == ClientId("orders-db", ORDERS)
    assert row_of(pressed("end", "tab").selection, SHOWN) == FINDING.id


def test_enter_opens_and_escape_goes_back() -> None:
    """A client's sessions have to be fetched."""
    opened = pressed("enter")
    assert (opened.selection.page, opened.selection.finding, opened.effect) == (Page.FINDING, FINDING, Effect.NOTHING)
    assert pressed("enter", "escape").selection == pressed().selection
    client = pressed("tab", "enter")
    assert (client.selection.page, client.effect) == (Page.CLIENT, Effect.FETCH)
    assert client.selection.client == ClientId("orders-db", ORDERS)


@pytest.mark.parametrize("keys", [("y",), ("c",), ("enter", "y")])
def test_y_copies_the_statement_and_shows_it(keys: tuple[str, ...]) -> None:
    """From the list and from the finding; Esc goes back to the finding."""
    copied = pressed(*keys)
    assert (copied.selection.page, copied.effect) == (Page.STATEMENT, Effect.COPY)
    assert pressed(*keys, "escape").selection.page is Page.FINDING


def test_nothing_is_copied_of_a_client() -> None:
    """Only a finding has a statement."""
    assert pressed("tab", "y").effect is Effect.NOTHING


def test_the_filter_takes_every_key_until_enter() -> None:
    """The key q is a letter then. Esc removes the filter."""
    typed = pressed("slash", *"chexq", "backspace", "backspace", "c", "enter").selection
    assert (typed.filter, typed.typing) == ("chec", False)
    assert isinstance(row_of(typed, SHOWN), ClientId)
    assert pressed("escape", selection=typed).selection.filter == ""
    assert pressed("slash", *"abc", "escape").selection.filter == ""


def test_s_goes_through_all_orders() -> None:
    """And begins again."""
    orders = [pressed(*["s"] * times).selection.order for times in range(len(Order) + 1)]
    assert orders == [*Order, Order.PROBLEMS]


def test_n_and_b_switch_between_servers() -> None:
    """After the last comes the first."""
    several = view(leaking(), after(server="a-db"), after(server="b-db"))
    names = [pressed(*["n"] * times, shown=several).selection.server for times in range(4)]
    assert names == ["orders-db", "a-db", "b-db", "orders-db"]
    assert pressed("b", shown=several).selection.server == "b-db"


def test_q_goes_back_first_and_ctrl_c_quits_from_everywhere() -> None:
    """So nobody leaves by reading a finding."""
    assert pressed("q").effect is Effect.QUIT
    assert pressed("question_mark", "q") == Pressed(pressed().selection)
    for keys in ((), ("enter",), ("slash",)):
        assert pressed(*keys, "ctrl+c").effect is Effect.QUIT


def test_a_finding_that_closes_stays_open_to_be_read() -> None:
    """The list goes on without it."""
    reading = pressed("enter").selection
    later = follow(reading, replace(SHOWN, findings=()))
    assert (later.page, later.finding) == (Page.FINDING, FINDING)
    assert row_of(later, replace(SHOWN, findings=())) == ClientId("orders-db", ORDERS)


def test_unknown_keys_do_nothing() -> None:
    """Nothing moves."""
    assert pressed("f7") == pressed()
