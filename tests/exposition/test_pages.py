import asyncio
import html
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

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
from pgwatch_sessions.exposition.cards import MAX_SESSIONS
from pgwatch_sessions.exposition.markup import Html, element
from pgwatch_sessions.exposition.pages import MAX_CLIENTS, MAX_FINDINGS, MAX_LIMITS, Link, page
from pgwatch_sessions.web.ranked_findings import anchor_of
from pgwatch_sessions.wording.amounts import duration, until_full
from tests.support.states import LEAKED, REFUSED, SERVER, after, leaking, polls_at_a_leak
from tests.support.values import NOW, session, snapshot
from tests.web.test_app import Watched, served

#: What would run, load or break out, were it not escaped.
HOSTILE = "<script>x()</script><img src=x onerror=y>\"'&amp;</pre></table>"
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "article"),
    *("div", "h1", "h2", "h3", "h4", "p", "span", "strong", "small", "a", "code", "pre", "ol", "li", "dl", "dt", "dd"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "meter"),
}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "id", "href", "title", "scope", "tabindex"),
    *("value", "max", "low", "high", "optimum"),
}


class Parsed(HTMLParser):
    """A page as a browser takes it: its elements, and the text of each place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that it ends what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text under the element that it stands in."""
        self.texts.append((self.open[-1] if self.open else "", data))

    def texts_of(self, *tags: str) -> list[str]:
        """Return the texts directly in such elements."""
        return [text for tag, text in self.texts if tag in tags]


def parsed(*states: ServerState, refreshing: bool = True) -> Parsed:
    """Return the page of these servers, checked for what all pages promise."""
    text = page(states, version="1.2.3", links=[Link(path="/metrics", meaning="numbers")], refreshing=refreshing)
    read = Parsed(text)
    assert {tag for tag, _ in read.elements} <= ELEMENTS
    assert {name for _, attributes in read.elements for name in attributes} <= ATTRIBUTES
    assert all(
        re.match(r"#leak-|\?refresh=off$|\.$|metrics$", attributes["href"] or "")
        for _, attributes in read.elements
        if "href" in attributes
    )
    return read


def shown(read: Parsed) -> str:
    """Return what a person reads, in one line."""
    return " ".join("".join(text for tag, text in read.texts if tag != "style").split())


def anchors(read: Parsed) -> list[str]:
    """Return the places that can be linked."""
    return [attributes["id"] or "" for _, attributes in read.elements if "id" in attributes]


def test_a_leak_is_told_from_its_verdict_to_the_statement_to_paste() -> None:
    """Who, where, since when, how fast, until when, why, and what to do."""
    state = leaking()
    held = len(state.findings[0].sessions)
    read = parsed(state)
    (headline,) = read.texts_of("h1")
    assert re.fullmatch(r"orders leaks at /orders/\{id\}, out of connections in \d+ s", headline)
    text = shown(read)
    for told in (
        "Leaking · orders:",
        f"Held now{held} sessions",
        "Since6 min ago2027-01-15 08:00:00 UTC",
        "Rate2.4 a minute",
        "limit of role app",
        "Likely cause",
        "What to do",
        "Now: end the sessions",
        f"The {MAX_SESSIONS} held longest; {held - MAX_SESSIONS} more",
        "10.0.0.7 port 40100",
        "alerts/runbooks/DatabaseConnectionLeak.md#transaction-held",
        f"the server{LEAKED + 2}27",
        f"role app{LEAKED}20",
    ):
        assert told in text, told
    pasted = [line for line in read.texts_of("code") if "pg_terminate_backend" in line]
    assert len(pasted) == 10
    assert pasted[0].endswith("WHERE pid = 100 AND backend_start = '2027-01-15 07:58:20.000000+00';\n")
    assert anchors(read) == [anchor_of("orders-db", state.findings[0])]


def test_no_page_has_a_literal() -> None:
    """Statements are redacted."""
    text = shown(parsed(leaking()))
    assert "card = ?" in text
    assert "swordfish" not in text
    assert "4711" not in text


def test_hostile_names_are_text_in_every_place() -> None:
    """Names, statements, tags, limits, roles, failures: each is shown as it is, and none is markup."""
    client = Client(HOSTILE, HOSTILE, HOSTILE)
    quoted = HOSTILE.replace('"', "")[:63]
    query = f"SELECT * FROM \"{quoted}\" /*route='{HOSTILE.replace(chr(39), '%27')}'*/"
    leak = leaking(server=HOSTILE, client=client, query=query)
    limited = ServerInfo(max_connections=30, role_limits=(ConnectionLimit(HOSTILE, 3),))
    limited_state = after(
        replace(snapshot(session(1, None, client=client), server=limited), own_user=HOSTILE), server=f"2{HOSTILE}"
    )
    down = after(Failure(reason=FailureReason.OTHER, detail=HOSTILE), server=f"3{HOSTILE}")
    text = shown(parsed(leak, limited_state, down))
    assert text.count(HOSTILE) > 20
    assert f"role {HOSTILE}" in text
    assert f"({HOSTILE})" in text
    assert f'GRANT pg_monitor TO "{HOSTILE.replace(chr(34), chr(34) * 2)}";' in text
    assert f'FROM "{quoted}"' in text


def test_when_nothing_is_wrong_the_page_says_so() -> None:
    """In words, and with the numbers that show it."""
    text = shown(parsed(after(snapshot(session(1), server=SERVER))))
    for told in ("Nothing is leaking", "Nothing is wrong", "No leak is open.", "not at this rate", "ordersappshopok"):
        assert told in text


def test_a_server_that_cannot_be_seen_says_why_and_since_when() -> None:
    """What was open stays, as of then; what the last poll would show is not shown."""
    text = shown(parsed(leaking(REFUSED)))
    for told in (
        "orders leaks at",
        "orders-db cannot be seen",
        "Not seen: it has no connection left and refuses new ones",
        "Last seen at 2027-01-15 08:06:30 UTC.",
        "FATAL: sorry, too many clients already",
        "not seeing is not gone",
        "Now: end the sessions",
    ):
        assert told in text
    assert "Clients and their sessions" not in text
    assert "It was never seen." in shown(parsed(after(REFUSED)))


@pytest.mark.parametrize("reason", FailureReason)
def test_every_failure_has_words(reason: FailureReason) -> None:
    """And the page is red at the top."""
    read = parsed(after(Failure(reason=reason)))
    assert read.texts_of("h1") == ["orders-db cannot be seen"]
    assert ("h1", {"class": "bad"}) in read.elements


def test_before_the_first_poll_nothing_is_claimed() -> None:
    """Neither healthy nor not."""
    read = parsed(ServerState(server="new"))
    assert read.texts_of("h1") == ["No poll yet"]
    assert "leaking" not in shown(read)


def test_a_server_that_is_full_without_a_leak_is_not_called_healthy() -> None:
    """Its slots are all in use, and nothing was found to leak."""
    busy = [
        session(pid, SessionState.ACTIVE, since=NOW - 1, client=Client("shop", "web", "checkout")) for pid in range(26)
    ]
    read = parsed(after(snapshot(*busy, server=SERVER)))
    assert read.texts_of("h1") == ["orders-db: too small for its work"]
    assert "Every ordinary connection is in use" in shown(read)


def test_hidden_sessions_are_told_with_the_grant_that_shows_them() -> None:
    """And the client's numbers are not half the truth."""
    text = shown(parsed(after(snapshot(session(1, None), session(2, None), session(3)))))
    assert "2 sessions are hidden from us" in text
    assert 'GRANT pg_monitor TO "pgwatch_sessions";' in text
    assert "2 hidden" in text


def test_folded_clients_are_told() -> None:
    """With what to do about them."""
    clients = [session(pid, client=Client("shop", "app", f"app{pid}")) for pid in range(5)]
    text = shown(parsed(after(snapshot(*clients), policy=Policy(max_clients=2))))
    assert "3 clients are shown as one, other: raise max_clients" in text


def test_the_place_of_a_finding_does_not_change() -> None:
    """Not with the polls that follow, and not with a restart of the daemon; servers do not share it."""
    (first,) = anchors(parsed(leaking()))
    assert anchors(parsed(leaking(REFUSED))) == [first]
    later = snapshot(session(100, SessionState.IDLE_IN_TRANSACTION, since=NOW), at=NOW + 1000, server=SERVER)
    assert anchors(parsed(leaking(later))) == [first]
    assert anchors(parsed(after(*list(polls_at_a_leak())[20:]))) == [first]
    both = anchors(parsed(leaking(), leaking(server="other")))
    assert len(set(both)) == 2


def many_findings() -> Iterator[ServerState]:
    """Yield a server with as many findings, sessions, clients and limits as nobody should have."""
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
    """However much is wrong, the worst is told first."""
    (state,) = many_findings()
    read = parsed(state)
    text = shown(read)
    assert len([tag for tag, _ in read.elements if tag == "article"]) == MAX_FINDINGS
    rows = len([tag for tag, _ in read.elements if tag == "tr"])
    assert rows == (MAX_FINDINGS * (MAX_SESSIONS + 1)) + (MAX_CLIENTS + 1) + (MAX_LIMITS + 1)
    left_out = len(state.findings) - MAX_FINDINGS
    assert left_out > 1
    for told in (f"And {left_out} more findings", "10 more", "481 more, less used", "201 more with fewer sessions"):
        assert told in text
    assert len(text) < 400_000


def test_the_page_refreshes_itself_unless_it_is_held_still() -> None:
    """Who copies statements from it is not disturbed."""
    refresh = ("meta", {"http-equiv": "refresh", "content": "10"})
    assert refresh in parsed(leaking()).elements
    assert refresh not in parsed(leaking(), refreshing=False).elements

    async def run() -> None:
        watched = Watched()
        watched.state = {"orders-db": leaking()}
        async with served(watched) as client:
            assert 'http-equiv="refresh"' in (await client.get("/")).text
            still = await client.get("/?refresh=off")
            assert 'http-equiv="refresh"' not in still.text
            assert "orders leaks at" in html.unescape(still.text)

    asyncio.run(run())


def test_what_is_not_html_already_becomes_text() -> None:
    """In children and in attributes."""
    assert element("p", "<b>", Html("<br>"), title='"') == '<p title="&quot;">&lt;b&gt;<br></p>'


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (0, "0 s"), (119.4, "119 s"), (120, "2 min"), (7300, "2 h 1 min"), (200_000, "2 d 7 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    """In two units at most."""
    assert duration(seconds) == words


def test_forecasts_are_said_as_people_say_them() -> None:
    """Never is a word, and so is now."""
    assert [until_full(each) for each in (float("inf"), 0.0, 90.0)] == ["not at this rate", "now", "in 90 s"]
