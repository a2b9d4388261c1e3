import html
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import (
    Client,
    ConnectionLimit,
    Failure,
    FailureReason,
    ServerInfo,
    SessionId,
    SessionState,
)
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.web.page.card import MAX_SESSIONS
from pgwatch_sessions.web.page.page import (
    MAX_CLIENTS,
    MAX_FINDINGS,
    MAX_LIMITS,
)
from pgwatch_sessions.web.ranked_findings import anchor_of
from pgwatch_sessions.wording.failures import FAILURES
from pgwatch_sessions.wording.termination import termination_sql
from tests.support.parsed_page import anchors, parsed, prepared, shown
from tests.support.states import END, LEAKED, REFUSED, SERVER, after, leaking, polls_at_a_leak
from tests.support.values import NOW, session, snapshot
from tests.support.web import Watched, served


def test_a_leak_is_shown_from_its_verdict_to_the_statement_to_paste() -> None:
    """The page says who leaks, where, since when, how fast, until when, why, and what to do."""
    state = leaking()
    held = len(state.findings[0].sessions)
    read = parsed(state)
    (headline,) = read.texts_of("h1")
    assert re.fullmatch(r"orders leaks at /orders/\{id\}, out of connections in \d+ s", headline)
    text = shown(read)
    for expected in (
        "Leaking · orders:",
        f"Held now{held} sessions",
        "Since6 min ago2027-01-15 08:00:00 UTC",
        "Rate2.4 more per minute",
        "limit of role app",
        "Likely cause",
        "What to do",
        "Now: terminate the sessions",
        f"The {MAX_SESSIONS} sessions held longest (not shown: {held - MAX_SESSIONS} more)",
        "10.0.0.7 port 40100",
        "for SQLAlchemy (shown by one of its statements)",
        f"the server{LEAKED + 2}27",
        f"role app{LEAKED}20",
    ):
        assert expected in text, expected
    (pasted,) = [text for text in read.texts_of("code") if "pg_terminate_backend" in text]
    assert pasted == termination_sql(state.findings[0].sessions)
    assert pasted.count("::timestamptz") == held
    assert anchors(read) == [anchor_of("orders-db", state.findings[0])]


def test_no_page_has_a_literal() -> None:
    """The page shows statements without their literals."""
    text = shown(parsed(leaking()))
    assert "card = ?" in text
    assert "swordfish" not in text
    assert "4711" not in text


def test_when_nothing_is_wrong_the_page_says_so() -> None:
    """The page says that nothing leaks, and shows the numbers behind it."""
    text = shown(parsed(after(snapshot(session(1), server=SERVER))))
    for expected in (
        "Nothing is leaking",
        "Nothing is wrong",
        "No open findings.",
        "not at this rate",
        "ordersappshopok",
    ):
        assert expected in text


def test_a_server_that_cannot_be_polled_says_why_and_since_when() -> None:
    """Open findings stay on the page as they were; the table of clients, which would be out of date, does not."""
    text = shown(parsed(leaking(REFUSED)))
    for expected in (
        "orders-db refuses connections: all slots for ordinary roles are in use; orders leaks at /orders/{id} ·",
        "Cannot poll this server: it has no free connection slot and refuses new connections",
        "The last successful poll was at 2027-01-15 08:06:30 UTC.",
        "FATAL: sorry, too many clients already",
        "They stay open because their sessions may still be there.",
        "Now: terminate the sessions",
    ):
        assert expected in text
    assert "Clients and their sessions" not in text
    assert "No poll has succeeded yet." in shown(parsed(after(REFUSED)))


@pytest.mark.parametrize("reason", FailureReason)
def test_every_failure_has_words(reason: FailureReason) -> None:
    """Every reason for a failed poll has a text, and the headline is red."""
    read = parsed(after(Failure(reason=reason)))
    assert read.texts_of("h1") == [f"orders-db cannot be polled: {FAILURES[reason]}"]
    assert ("h1", {"class": "bad"}) in read.elements


def test_before_the_first_poll_nothing_is_claimed() -> None:
    """The page calls a server that was never polled neither healthy nor leaking."""
    read = parsed(ServerState(server="new"))
    assert read.texts_of("h1") == ["new was not polled yet"]
    assert "leaking" not in shown(read)


def test_a_server_that_is_full_without_a_leak_is_not_called_healthy() -> None:
    """If all connections are in use, the headline says so even when nothing leaks."""
    busy = [
        session(pid, SessionState.ACTIVE, since=NOW - 1, client=Client("shop", "web", "checkout")) for pid in range(26)
    ]
    read = parsed(after(snapshot(*busy, server=SERVER)))
    assert read.texts_of("h1") == ["orders-db refuses connections: all slots for ordinary roles are in use"]
    assert "Every ordinary connection is in use" in shown(read)


def test_hidden_sessions_are_shown_with_the_grant_that_reveals_them() -> None:
    """A client with hidden sessions has no numbers by state, because they would count only some of its sessions."""
    text = shown(parsed(after(snapshot(session(1, None), session(2, None), session(3)))))
    assert text.count("2 of 3 sessions are hidden from the monitoring role: leaks among them cannot be seen") == 3
    assert "Nothing is" not in text
    assert "No open findings among the visible sessions." in text
    assert 'GRANT pg_monitor TO "pgwatch_sessions";' in text
    assert "2 hidden" in text


def test_what_is_held_and_not_judged_is_listed() -> None:
    """A person who tries BEGIN in psql sees why nobody is alarmed. A healthy server has no such list."""
    console = Client("shop", "ann", "psql")
    held = session(1, SessionState.IDLE_IN_TRANSACTION, since=NOW - 360, client=console)
    text = shown(parsed(after(snapshot(held))))
    assert "Held, but not judged psql (shop, ann), 6 min idle in transaction: a console, reported only when it" in text
    assert "; --tools '' judges it" in text
    assert "not judged" not in shown(parsed(after(snapshot(session(1)))))


def test_folded_clients_are_counted() -> None:
    """The page says how many clients are counted as `other`, and which setting lists them."""
    clients = [session(pid, client=Client("shop", "app", f"app{pid}")) for pid in range(5)]
    text = shown(parsed(after(snapshot(*clients), policy=Policy(max_clients=2))))
    assert "3 clients are counted together as other. To list each client, raise max_clients" in text


def test_a_link_to_a_finding_keeps_working() -> None:
    """The anchor stays the same at later polls and after a restart of the daemon, and differs between servers."""
    (first,) = anchors(parsed(leaking()))
    assert anchors(parsed(leaking(REFUSED))) == [first]
    later = snapshot(session(100, SessionState.IDLE_IN_TRANSACTION, since=NOW), at=NOW + 1000, server=SERVER)
    assert anchors(parsed(leaking(later))) == [first]
    assert anchors(parsed(after(*list(polls_at_a_leak())[20:]))) == [first]
    both = anchors(parsed(leaking(), leaking(server="other")))
    assert len(set(both)) == 2


def many_findings() -> Iterator[ServerState]:
    """Yield a server with far too many findings, sessions, clients and limits."""
    leaks = [
        session(
            pid, SessionState.IDLE_IN_TRANSACTION, since=NOW - 900, query=f"SELECT {'long, ' * 200} FROM a{'b' * site}"
        )
        for site in range(1, 80)
        for pid in range(site * 100, site * 100 + 20)
    ]
    clients = [session(20_000 + n, client=Client("shop", "app", f"application {n}")) for n in range(300)]
    limits = tuple(ConnectionLimit(f"role {n}", 10) for n in range(500))
    numbered = [replace(each, id=SessionId(each.id.pid, NOW - 1000)) for each in leaks]
    server = ServerInfo(max_connections=10_000, role_limits=limits)
    yield after(snapshot(*numbered, *clients, server=server), policy=Policy(max_clients=1000))


def test_a_page_is_bounded_and_says_what_it_leaves_out() -> None:
    """The page shows the worst findings, the nearest limits and the largest clients, and counts the rest."""
    (state,) = many_findings()
    read = parsed(state)
    text = shown(read)
    assert len([tag for tag, _ in read.elements if tag == "article"]) == MAX_FINDINGS
    rows = len([tag for tag, _ in read.elements if tag == "tr"])
    assert rows == (MAX_FINDINGS * (MAX_SESSIONS + 1)) + (MAX_CLIENTS + 1) + (MAX_LIMITS + 1)
    left_out = len(state.findings) - MAX_FINDINGS
    assert left_out > 1
    for expected in (
        f"Not shown: {left_out} findings less urgent than these",
        "not shown: 10 more",
        "not shown: 481 limits with more free connections",
        "not shown: 201 clients with fewer sessions",
    ):
        assert expected in text
    assert len(text) < 400_000


def test_the_limits_that_are_nearest_to_full_are_shown() -> None:
    """The server's own limit comes first, then those with the fewest free connections."""
    roles = [ConnectionLimit(f"role{number}", 1000 - number) for number in range(2 * MAX_LIMITS)]
    limits = ServerInfo(max_connections=100, role_limits=(*roles, ConnectionLimit("app", 5)))
    page = prepared(after(snapshot(*(session(pid) for pid in range(1, 4)), server=limits)))
    assert page.servers[0].poll is not None
    names = [limit.name for limit in page.servers[0].poll.limits]
    assert names[:3] == ["the server", "role app", "role role39"]


async def test_the_page_refreshes_itself_until_it_is_told_to_stop() -> None:
    """A person can stop the refreshing to copy statements from the page."""
    refresh = ("meta", {"http-equiv": "refresh", "content": "10"})
    assert refresh in parsed(leaking()).elements
    assert refresh not in parsed(leaking(), refreshing=False).elements
    watched = Watched()
    watched.state = {"orders-db": leaking()}
    async with served(watched) as client:
        assert 'http-equiv="refresh"' in (await client.get("/")).text
        still = await client.get("/?refresh=off")
        assert 'http-equiv="refresh"' not in still.text
        assert "orders leaks at" in html.unescape(still.text)


def test_a_blocking_leak_shows_how_many_sessions_wait() -> None:
    """The number of blocked sessions is red. How far vacuum is held back is shown if it matters."""
    held = session(100, SessionState.IDLE_IN_TRANSACTION, since=NOW, backend_xmin_age=25_000)
    waiting = session(900, SessionState.ACTIVE, blocked_by=(100,), wait_event_type="Lock")
    read = parsed(leaking(snapshot(held, waiting, at=END + 10, server=SERVER)))
    assert "Blocks1 session" in shown(read)
    assert "Holds back vacuum by25,000 transactions" in shown(read)
    little = replace(held, backend_xmin_age=7)
    assert "vacuum by" not in shown(parsed(leaking(snapshot(little, at=END + 10, server=SERVER))))
    assert ("dd", {"class": "bad"}) in read.elements


def test_a_finding_without_held_sessions_says_that_it_will_close() -> None:
    """It is recovering, and alarms nobody, however severe it was. Its texts are made from its last sessions."""
    read = parsed(leaking(snapshot(at=END + 10, server=SERVER)))
    text = shown(read)
    assert read.texts_of("h1") == ["Nothing is leaking (1 finding recovering)"]
    assert (
        "recovering orders (shop, app): all 14 sessions at /orders/{id} have ended or are used again; "
        "closes in 2 min unless it leaks again"
    ) in text
    assert "Closesin 2 min" in text
    assert "at the route /orders/{id}" in text
    assert "critical" not in text
    assert not [tag for tag, attributes in read.elements if "bad" in (attributes.get("class") or "").split()]


def test_sessions_with_different_last_statements_show_each() -> None:
    """The table has a column for the statement; if all share one, the card shows it once."""
    held = [
        session(pid, SessionState.IDLE_IN_TRANSACTION, since=NOW, query=f"SELECT a{pid} FROM orders")
        for pid in (100, 101)
    ]
    text = shown(parsed(leaking(snapshot(*held, at=END + 10, server=SERVER))))
    assert "last statement" in text
    assert "SELECT a100 FROM orders" in text
    assert "SELECT a101 FROM orders" in text
    assert "Last statement of each session" not in text
    assert "Last statement of each session" in shown(parsed(leaking()))
