import json
import math
import re
from typing import Any

import pytest

from pgwatch_sessions.core.model import Client, Failure, FailureReason, SessionState
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.web.json_api import DOCUMENTS, MAX_LISTED, MAX_OF_FINDING, MAX_STATEMENT, Selection, to_json
from pgwatch_sessions.web.page.headline import headline_of
from pgwatch_sessions.wording.sentences import finding_sentence
from tests.support.states import END, LEAKED, REFUSED, SERVER, after, leaking
from tests.support.values import NOW, session, snapshot
from tests.support.web import Watched, served

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
TIMES = {"since", "opened_at", "taken_at", "backend_start"}


def document(name: str, *states: ServerState, **selection: Any) -> dict[str, Any]:
    """Return a document as a client reads it."""
    fields = DOCUMENTS[name]({state.server: state for state in states}, Selection(**selection))
    read: dict[str, Any] = json.loads(to_json(fields), parse_constant=pytest.fail)
    return read


def check(value: Any, name: str = "") -> None:
    """Check the rules that hold for the values of all documents."""
    if isinstance(value, dict):
        for key, inner in value.items():
            assert re.fullmatch(r"[a-z_]+", key) or name in {"states", "tags"}
            check(inner, key)
    elif isinstance(value, list):
        for inner in value:
            check(inner, name)
    elif isinstance(value, float):
        assert math.isfinite(value)
        assert value >= 0
    elif name in TIMES and value is not None:
        assert TIME.fullmatch(value)


def test_a_leak_has_its_evidence_and_advice() -> None:
    """The document says who leaks, where, since when, how fast and until when, with sessions, cause and steps."""
    read = document("leaks", leaking())
    check(read)
    (leak,) = read["leaks"]
    sessions, advice, anchor = leak.pop("sessions"), leak.pop("advice"), leak.pop("anchor")
    assert leak == {
        "server": "orders-db",
        "up": True,
        "kind": "transaction_held",
        "message": finding_sentence(leaking().findings[0], at=END),
        "severity": "critical",
        "state": "open",
        "closes_at": None,
        "unseen_since": None,
        "is_leak": True,
        "database": "shop",
        "user": "app",
        "application": "orders",
        "origin": "10.0.0.7",
        "origins": ["10.0.0.7"],
        "site": "/orders/{id}",
        "since": "2027-01-15T08:00:00.000000+00:00",
        "opened_at": leak["opened_at"],
        "session_count": len(sessions),
        "total": len(sessions),
        "rate_per_minute": 2.4,
        "exhaustion_seconds": leak["exhaustion_seconds"],
        "exhaustion_limit": {"scope": "role", "name": "app"},
        "blocked": 0,
        "recurrence": None,
        "harm": {
            "slots": len(sessions),
            "blocked": 0,
            "blocked_seconds": 0.0,
            "own_pool": None,
            "xmin_age_max": None,
            "xid_age_max": None,
        },
    }
    assert 0 < leak["exhaustion_seconds"] < 300
    assert re.fullmatch(r"leak-[0-9a-f]{10}", anchor)
    assert sessions[0] == {
        "pid": 100,
        "backend_start": "2027-01-15T07:58:20.000000+00:00",
        "client_addr": "10.0.0.7",
        "client_port": 40100,
        "state": "idle in transaction",
        "held_seconds": END - NOW,
        "statement": "SELECT * FROM orders WHERE id = $1::INTEGER AND card = ? AND cvc = ?",
        "tags": {"route": "/orders/{id}"},
    }
    assert "`/orders/{id}`" in advice["cause"]
    assert len(advice["steps"]) == 4
    assert "IN (VALUES\n  (100, '2027-01-15 07:58:20.000000+00'::timestamptz),\n" in advice["terminate"]
    assert advice["runbook"].endswith("#transaction-held")


def test_the_worst_comes_first() -> None:
    """The order does not depend on the server or the client."""
    billing = Client("shop", "app", "billing")
    held = session(1, SessionState.IDLE_IN_TRANSACTION, since=NOW - 100, client=billing)
    slight = after(snapshot(held, server=SERVER), server="a-db")
    read = document("leaks", slight, leaking())
    assert [(leak["severity"], leak["server"]) for leak in read["leaks"]] == [
        ("critical", "orders-db"),
        ("notice", "a-db"),
    ]


def test_no_document_has_a_literal() -> None:
    """Statements are redacted in every document."""
    for name in DOCUMENTS:
        text = json.dumps(document(name, leaking()))
        assert "swordfish" not in text
        assert "4711" not in text


def test_the_sessions_of_a_server_are_those_of_its_last_poll() -> None:
    """Ages are by the server's clock, and sessions that were longest in their state come first."""
    (server,) = document("sessions", leaking())["servers"]
    check(server)
    assert server["session_count"] == len(server["sessions"]) == LEAKED + 1
    assert (server["up"], server["failure"], server["hidden_sessions"]) == (True, None, 0)
    assert [each["state_seconds"] for each in server["sessions"]] == sorted(
        (each["state_seconds"] for each in server["sessions"]), reverse=True
    )
    assert server["sessions"][0]["transaction_seconds"] == END - NOW
    assert {each["application"] for each in server["sessions"]} == {"orders", "checkout"}


def test_after_a_failed_poll_sessions_disappear_and_leaks_stay() -> None:
    """The sessions of a leak may still be there."""
    state = leaking(REFUSED)
    failure = {
        "reason": "exhausted",
        "detail": "FATAL: sorry, too many clients already",
        "message": "it has no free connection slot and refuses new connections "
        "(exhausted: FATAL: sorry, too many clients already)",
    }
    (server,) = document("sessions", state)["servers"]
    assert (server["up"], server["failure"], server["sessions"], server["session_count"]) == (False, failure, [], None)
    assert TIME.fullmatch(server["taken_at"])
    (server,) = document("diagnosis", state)["servers"]
    assert (server["up"], server["failure"], server["clients"], server["limits"]) == (False, failure, [], [])
    assert (server["diagnosis"], server["exhausted"]) == ("unknown", None)
    (leak,) = document("leaks", state)["leaks"]
    assert leak["up"] is False
    assert leak["session_count"] == len(leak["sessions"]) > 0


def test_before_the_first_poll_a_server_is_neither_up_nor_down() -> None:
    """`up` is null."""
    state = ServerState(server="new")
    assert document("leaks", state) == {"leaks": [], "truncated": False}
    for name in ("sessions", "diagnosis"):
        (server,) = document(name, state)["servers"]
        check(server)
        assert (server["up"], server["failure"], server["taken_at"]) == (None, None, None)


def test_the_diagnosis_has_verdicts_and_limits() -> None:
    """A limit that is never reached has no number of seconds."""
    read = document("diagnosis", leaking())
    assert read["headline"] == headline_of([leaking()])._asdict()
    (server,) = read["servers"]
    check(server)
    assert server["diagnosis"] == "leaking"
    assert "/orders/{id}" in server["reason"]
    limits = {(each["scope"], each["name"]): each for each in server["limits"]}
    assert limits["server", "orders-db"] | {"exhaustion_seconds": 0} == {
        "scope": "server",
        "name": "orders-db",
        "capacity": 27,
        "used": LEAKED + 2,
        "exhaustion_seconds": 0,
    }
    verdicts = {each["application"]: (each["diagnosis"], each["session_count"]) for each in server["clients"]}
    assert verdicts == {"orders": ("leaking", LEAKED), "checkout": ("ok", 1)}
    orders = next(each for each in server["clients"] if each["application"] == "orders")
    assert orders["states"] == dict.fromkeys(SessionState, 0) | {"idle in transaction": LEAKED}
    assert orders["idle_in_transaction_age_max_seconds"] == END - NOW
    assert server["not_judged"] == []
    (calm,) = document("diagnosis", after(snapshot(session(1), server=SERVER)))["servers"]
    assert {each["exhaustion_seconds"] for each in calm["limits"]} == {None}


def test_the_diagnosis_lists_what_is_held_and_not_judged() -> None:
    """With the reason as a word of a closed set, and in a sentence; by application, if one is asked for."""
    console, young = (
        session(pid, SessionState.IDLE_IN_TRANSACTION, since=NOW - seconds, client=Client("shop", "ann", name))
        for pid, seconds, name in ((1, 360, "psql"), (2, 30, "orders"))
    )
    (server,) = document("diagnosis", after(snapshot(console, young)))["servers"]
    check(server)
    first, second = server["not_judged"]
    assert first.pop("text").startswith("psql (shop, ann), 6 min idle in transaction: a console, ")
    assert first == {
        "database": "shop",
        "user": "ann",
        "application": "psql",
        "reason": "tool",
        "sessions": 1,
        "seconds": 360,
        "limit_seconds": None,
    }
    assert (second["reason"], second["limit_seconds"]) == ("young", 60)
    (chosen,) = document("diagnosis", after(snapshot(console, young)), application="orders")["servers"]
    assert [each["application"] for each in chosen["not_judged"]] == ["orders"]


def test_a_client_with_hidden_sessions_has_no_numbers() -> None:
    """The numbers of the visible sessions alone would look like those of all."""
    (server,) = document("diagnosis", after(snapshot(session(1, None), session(2), server=SERVER)))["servers"]
    (client,) = server["clients"]
    assert (server["hidden_sessions"], client["hidden_sessions"], client["states"]) == (1, 1, None)
    assert {client[key] for key in client if key.endswith("seconds")} == {None}


def test_parameters_select_by_server_application_and_limit() -> None:
    """`truncated` says that the limit left something out."""
    states = leaking(), leaking(server="other-db", client=Client("shop", "app", "billing"))
    assert {each["server"] for each in document("leaks", *states)["leaks"]} == {"orders-db", "other-db"}
    assert {each["application"] for each in document("leaks", *states, server="other-db")["leaks"]} == {"billing"}
    assert {each["server"] for each in document("leaks", *states, application="orders")["leaks"]} == {"orders-db"}
    one = document("leaks", *states, limit=1)
    assert (len(one["leaks"]), one["truncated"]) == (1, True)
    sessions = document("sessions", *states, application="checkout")
    assert [each["session_count"] for each in sessions["servers"]] == [1, 1]
    few = document("sessions", *states, limit=3)
    assert [len(each["sessions"]) for each in few["servers"]] == [3, 0]
    assert few["truncated"]
    assert few["servers"][0]["session_count"] == LEAKED + 1
    clients = document("diagnosis", *states, limit=1)
    assert ([len(each["clients"]) for each in clients["servers"]], clients["truncated"]) == ([1, 0], True)


@pytest.mark.promise("HTTP clients can neither stop nor delay it.")
def test_lists_are_bounded() -> None:
    """A server may have thousands of sessions with long statements, in one finding or in many."""
    query = f"SELECT {', '.join(f'column_{number}' for number in range(1000))} FROM orders"
    held = [session(pid, SessionState.IDLE_IN_TRANSACTION, since=NOW - 900, query=query) for pid in range(1, 3001)]
    one = after(snapshot(*held))
    sites = [
        session(pid, SessionState.IDLE_IN_TRANSACTION, since=NOW - 900, query=f"SELECT * FROM a{'b' * (pid // 3)}")
        for pid in range(3, 3003)
    ]
    many = after(snapshot(*sites), server="many")
    read = document("leaks", one, many)
    assert read["truncated"]
    listed = [len(leak["sessions"]) for leak in read["leaks"]]
    assert max(listed) == MAX_OF_FINDING
    assert sum(listed) <= MAX_LISTED
    assert len(listed) <= MAX_LISTED
    assert read["leaks"][0]["session_count"] == 3000
    (server,) = document("sessions", one)["servers"]
    assert (len(server["sessions"]), server["session_count"], server["truncated"]) == (MAX_LISTED, 3000, True)
    assert {len(each["statement"]) for each in server["sessions"]} == {MAX_STATEMENT}
    for name in DOCUMENTS:
        assert len(json.dumps(document(name, one, many))) < 5_000_000


def test_hostile_names_are_read_back_as_they_are() -> None:
    """Quotes, markup, line separators and half a surrogate pair do not break a document."""
    name = "a\"b\\c</script>\u2028\ud800'é"
    state = after(snapshot(session(1, client=Client(name, name, name), query=f'SELECT * FROM "{name}"')), server=name)
    (server,) = document("sessions", state)["servers"]
    assert server["server"] == server["sessions"][0]["application"] == name
    check(server)


async def test_documents_are_served_as_json() -> None:
    """A new state is served at once, HEAD has the length of GET, and the media type is JSON."""
    watched = Watched()
    async with served(watched) as client:
        watched.state = {"orders-db": leaking()}
        for name in DOCUMENTS:
            response = await client.get(f"/api/v1/{name}")
            assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
            check(response.json())
            head = await client.head(f"/api/v1/{name}")
            assert head.headers["Content-Length"] == response.headers["Content-Length"]
        watched.state = {"orders-db": after(Failure(reason=FailureReason.NETWORK))}
        assert (await client.get("/api/v1/leaks")).json()["leaks"] == []


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ("limit=0", 400, "limit must be a whole number of at least 1"),
        ("limit=-1", 400, "limit must be a whole number of at least 1"),
        ("limit=many", 400, "limit must be a whole number of at least 1"),
        ("limit=%C2%B2", 400, "limit must be a whole number of at least 1"),
        ("limit=" + "9" * 5000, 400, "limit must be a whole number of at least 1"),
        ("server=nobody", 404, "no server with this name is watched"),
        ("application=nobody", 200, None),
        ("limit=999999999", 200, None),
        ("unknown=1", 200, None),
    ],
)
async def test_a_wrong_parameter_is_answered_with_an_error(query: str, status: int, error: str | None) -> None:
    """The error is JSON. Unknown parameters are ignored."""
    watched = Watched()
    watched.state = {"orders-db": leaking()}
    async with served(watched) as client:
        response = await client.get(f"/api/v1/leaks?{query}")
        assert response.status_code == status
        assert response.json().get("error") == error


async def test_requests_cannot_make_the_daemon_render_without_end() -> None:
    """Too many different requests for one state are refused. Known ones, the page and whole documents are not."""
    watched = Watched()
    watched.state = {"orders-db": leaking()}
    async with served(watched) as client:
        statuses = [(await client.get(f"/api/v1/leaks?application={each}")).status_code for each in range(100)]
        assert sorted(set(statuses)) == [200, 503]
        assert (await client.get("/api/v1/leaks?application=0")).status_code == 200
        for path in ("/", "/?refresh=off", "/api/v1/sessions", "/api/v1/diagnosis"):
            assert (await client.get(path)).status_code == 200
        watched.state = dict(watched.state)
        assert (await client.get("/api/v1/leaks?application=99")).status_code == 200
