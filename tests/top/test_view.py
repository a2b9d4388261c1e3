from dataclasses import replace

import pytest

from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.top.view import ClientId, view_of
from tests.support.states import END, LEAKED, REFUSED, SERVER, after, leaking
from tests.support.values import NOW, ORDERS, session, snapshot
from tests.top.views import document, view


def test_a_view_has_the_finding_with_its_advice_and_sessions() -> None:
    """The sentence is that of the document; lists become tuples."""
    (finding,) = view(leaking()).findings
    assert (finding.severity, finding.label, finding.client) == (Severity.CRITICAL, "CRITICAL", ORDERS)
    assert finding.sentence == document("leaks", leaking())["leaks"][0]["message"]
    assert finding.session_count == len(finding.sessions) > 10
    assert finding.sessions[0].seconds == END - NOW
    assert finding.cause
    assert finding.steps
    assert "\n".join(finding.terminate) == document("leaks", leaking())["leaks"][0]["advice"]["terminate"]
    assert replace(finding, session_count=0).label == "recovering"


def test_a_view_has_limits_and_clients_by_state() -> None:
    """The server's own limit comes first."""
    (server,) = view(leaking()).servers
    assert [limit.name for limit in server.limits] == ["the server", "role app"]
    assert server.limits[1].reached.startswith("in ")
    clients = {each.id.client.application: each for each in server.clients}
    orders, checkout = clients["orders"], clients["checkout"]
    assert (orders.sessions, orders.active, orders.idle, orders.in_transaction) == (LEAKED, 0, 0, LEAKED)
    assert (checkout.active, checkout.in_transaction, checkout.is_healthy) == (1, 0, True)
    assert (orders.verdict, orders.is_healthy) == ("leaking", False)


def test_counts_are_not_known_while_sessions_are_hidden() -> None:
    """They are not shown as zero."""
    (server,) = view(after(snapshot(session(1, None), session(2), server=SERVER))).servers
    (client,) = server.clients
    assert (server.hidden, client.hidden) == (1, 1)
    assert (client.active, client.idle, client.in_transaction) == (None, None, None)


def test_what_is_not_judged_is_said() -> None:
    """With the reason, as the page and `check` say it."""
    console = session(1, SessionState.IDLE_IN_TRANSACTION, since=NOW - 360, client=ORDERS._replace(application="psql"))
    (server,) = view(after(snapshot(console, server=SERVER))).servers
    assert [text.partition(", reported")[0] for text in server.not_judged] == [
        "psql (shop, app), 6 min idle in transaction: a console"
    ]


def test_a_failed_poll_is_told_and_has_no_clients() -> None:
    """The time is that of the last successful poll."""
    (server,) = view(leaking(REFUSED)).servers
    assert server.up is False
    assert "no free connection slot" in server.failure
    assert server.clients == ()
    assert server.polled_at == END


def test_the_sessions_of_an_opened_client_are_its_own() -> None:
    """Those of a client with the same application name and another user are left out."""
    other = ORDERS._replace(user="other")
    state = after(snapshot(session(1), session(2, client=other), server=SERVER))
    shown = view(state, opened=ClientId("orders-db", ORDERS))
    assert [each.pid for each in shown.opened_sessions] == [1]


def test_control_characters_of_clients_do_not_reach_the_terminal() -> None:
    """A client chooses its own name, and its statements."""
    evil = ORDERS._replace(application="x\x1b]52;c;aGk=\a")
    held = session(1, SessionState.IDLE_IN_TRANSACTION, since=NOW - 100, client=evil, query="SELECT 1 AS \x1b[2J")
    shown = view(after(snapshot(held, server=SERVER)), opened=ClientId("orders-db", evil))
    (finding,) = shown.findings
    texts = [shown.headline, finding.sentence, finding.cause, *finding.steps, *finding.terminate]
    texts += [each.statement for each in (*finding.sessions, *shown.opened_sessions)]
    assert all(text.isprintable() for text in texts)


@pytest.mark.parametrize("missing", ["headline", "servers"])
def test_a_document_of_another_form_is_refused(missing: str) -> None:
    """So an older daemon is named as such, instead of half a screen being shown."""
    diagnosis = document("diagnosis", leaking())
    del diagnosis[missing]
    with pytest.raises(KeyError):
        view_of(diagnosis, document("leaks", leaking()))
