import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwatch_sessions.core.model import (
    Client,
    ConnectionLimit,
    Failure,
    FailureReason,
    ServerInfo,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import UNKNOWN_STATEMENT, parse_statement
from pgwatch_sessions.recording import BadLine, RecordedPoll
from tests.support.recording_contents import BY_HAND, line_of, read

THREE = 1_795_230_000.0  # 2026-11-21T03:00:00Z


def test_recording_made_by_hand() -> None:
    """Polls come in the order of the file with exact times; missing keys are not known, other backends are left out."""
    first, failure, other, bad, last = read(BY_HAND.read_bytes())
    assert isinstance(first, RecordedPoll)
    assert (first.number, first.server, first.taken_at) == (1, "lab", THREE + 2.000003)
    assert isinstance(first.outcome, Snapshot)
    assert first.outcome.taken_at == first.taken_at
    assert first.outcome.server == ServerInfo(
        version_num=160014,
        max_connections=100,
        superuser_reserved_connections=3,
        role_limits=(ConnectionLimit("app", 50),),
    )
    held, waiter, tagged, pooled, unknown, hidden, starting = first.outcome.sessions
    assert held == Session(
        id=SessionId(1, THREE + 0.000001),
        client=Client("shop", "app", "orders"),
        client_addr="10.0.0.7",
        client_port=4711,
        state=SessionState.IDLE_IN_TRANSACTION,
        state_change=THREE + 1.000002,
        xact_start=THREE + 0.5,
        query_start=THREE + 1.25,
        wait_event_type="Client",
        wait_event="ClientRead",
        backend_xid_age=None,
        backend_xmin_age=12,
        blocked_by=(),
        statement=parse_statement("SELECT * FROM orders WHERE email = ? AND id = ?"),
    )
    assert waiter.blocked_by == (1,)
    assert (tagged.client.application, pooled.client.application) == ("billing", "orders")
    assert unknown.client == Client("(none)", "(none)", "(none)")
    assert (unknown.state, unknown.state_change, unknown.statement) == (None, None, UNKNOWN_STATEMENT)
    assert (hidden.id, hidden.state, hidden.client.user) == (SessionId(6, None), None, "app")
    assert starting.state is SessionState.STARTING

    assert failure == RecordedPoll(3, Failure(reason=FailureReason.EXHAUSTED), THREE + 12, "lab")
    assert other == RecordedPoll(
        4, Snapshot(taken_at=THREE + 22, server=ServerInfo(), sessions=()), THREE + 22, "other"
    )
    assert bad == BadLine(5, "Invalid JSON: EOF while parsing a string at column 32")
    assert isinstance(last, RecordedPoll)
    assert (last.number, last.server, last.taken_at) == (6, "lab", THREE + 1)


SECRET = "s3cret-s3cret"
AN_INTEGER, A_TEXT, AN_OBJECT = (
    f"Input should be {what}" for what in ("a valid integer", "a valid string", "an object")
)
A_TIME = "Input should be a time with a time zone"
A_POSSIBLE_TIME = "Input should be a time between the years 1970 and 2999"
BAD_LINES = [
    (f'{{"a": {SECRET}}}'.encode(), "Invalid JSON: expected value at column 7"),
    (b'{"a": "\xff"}', "Invalid JSON: invalid unicode code point at column 8"),
    (rb'{"a": "\ud83d"}', "Invalid JSON: unexpected end of hex escape at column 14"),
    (b'{"a": ' + b"9" * 5000 + b"}", "Invalid JSON: number out of range at column 4308"),
    (b"[" * 100_000, "Invalid JSON: recursion limit exceeded at column 202"),
    (f'"{SECRET}"'.encode(), AN_OBJECT),
    (line_of(taken_at=None), f"taken_at: {A_TIME}"),
    (line_of(taken_at="2026-11-21T03:00:00"), f"taken_at: {A_TIME}"),
    (line_of(taken_at=SECRET), f"taken_at: {A_TIME}"),
    (line_of(taken_at="9999-12-31T23:59:59-14:00"), f"taken_at: {A_POSSIBLE_TIME}"),
    (line_of(taken_at="3000-01-01T00:00:00Z"), f"taken_at: {A_POSSIBLE_TIME}"),
    (
        line_of(sessions=[{"pid": 1, "backend_start": "0001-01-01T00:00Z"}]),
        f"sessions[0].backend_start: {A_POSSIBLE_TIME}",
    ),
    (line_of(sessions=[{"pid": 1}] * (2**18 + 1)), "sessions: Tuple should have at most 262144 items"),
    (
        line_of(sessions=[{"pid": 1, "blocked_by": [1] * (2**18 + 1)}]),
        "sessions[0].blocked_by: Tuple should have at mo",
    ),
    (line_of(taken_at=1763694000), f"taken_at: {A_TIME}"),
    (b'{"sessions": []}', "taken_at: Field required"),
    (line_of(sessions=None), "neither sessions nor failure"),
    (line_of(sessions={}), "sessions: Input should be a valid array"),
    (line_of(sessions=[SECRET]), f"sessions[0]: {AN_OBJECT}"),
    (line_of(sessions=[{"pid": 1}, {}]), "sessions[1].pid: Field required"),
    (line_of(sessions=[{"pid": True}]), f"sessions[0].pid: {AN_INTEGER}"),
    (line_of(sessions=[{"pid": 2**63}]), "sessions[0].pid: Input should be less than 9223372036854775808"),
    (line_of(sessions=[{"pid": 1, "state": SECRET}]), "sessions[0].state: Input should be 'active', 'idle', "),
    (line_of(sessions=[{"pid": 1, "query": [SECRET]}]), "sessions[0].query: Input should be a valid string"),
    (line_of(sessions=[{"pid": 1, "usename": "x" * 1001}]), "sessions[0].usename: String should have at most 1000 c"),
    (line_of(sessions=[{"pid": 1, "blocked_by": ["1"]}]), f"sessions[0].blocked_by[0]: {AN_INTEGER}"),
    (line_of(server={"role_limits": {SECRET: "x"}}), "server.role_limits: Input should be an object of valid integers"),
    (line_of(server=[]), f"server: {AN_OBJECT}"),
    (line_of(databases=[{"session_time": "1"}]), "databases[0].session_time: Input should be a valid number"),
    (line_of(databases=[{"session_time": float("nan")}]), "databases[0].session_time: Input should be a finite number"),
    (line_of(failure={}), "failure.reason: Field required"),
    (line_of(failure={"reason": SECRET}), "failure.reason: Input should be 'exhausted', "),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason for _, reason in BAD_LINES])
def test_bad_line_is_reported_and_the_next_is_read(line: bytes, reason: str) -> None:
    """The reason quotes nothing from the line."""
    bad, good = read(line + b"\r\n\n" + line_of())
    assert isinstance(bad, BadLine)
    assert bad.number == 1
    assert bad.reason.startswith(reason)
    assert SECRET not in bad.reason
    assert isinstance(good, RecordedPoll)
    assert good.number == 3


def test_unchanged_sessions_are_the_same_objects() -> None:
    """From one poll of a server to its next, a session that did not change takes no time and no memory again."""
    rows = [{"pid": 1, "query": "SELECT 1"}, {"pid": 2, "query": "SELECT 2"}]
    lines = (
        line_of(sessions=rows),
        line_of(server={"name": "other"}, sessions=[{"pid": 1}]),
        line_of(server={"name": "(none)"}, sessions=[*rows[:1], {"pid": 2, "query": "SELECT b"}]),
    )
    first, _, third = (item.outcome for item in read(b"\n".join(lines)) if isinstance(item, RecordedPoll))
    assert isinstance(first, Snapshot)
    assert isinstance(third, Snapshot)
    assert third.sessions[0] is first.sessions[0]
    assert third.sessions[1].statement.text == "SELECT b"


GOOD = BY_HAND.read_bytes()


@pytest.mark.promise("A file that it reads can neither end nor exhaust it.")
@given(st.data())
def test_no_content_makes_the_reader_raise(data: st.DataObject) -> None:
    """Whatever is changed in a file, plain or compressed: each line is a poll or a bad line, in ascending order."""
    content = data.draw(st.sampled_from([GOOD, gzip.compress(GOOD), gzip.compress(GOOD, 0) + gzip.compress(GOOD)]))
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.integers(0, 40))
        junk = data.draw(st.sampled_from([b"", b"\n", b'"', b"null", b"-1e999", b"[{", b"\x1f\x8b\x08"]) | st.binary())
        content = content[:start] + junk + content[end:]
    numbers = [item.number for item in read(content)]
    assert numbers == sorted(set(numbers))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["idle", "2026-11-21T03:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(values, st.data())
def test_no_value_makes_the_reader_raise(value: Any, data: st.DataObject) -> None:
    """Any value may replace any value of a real line."""
    document = json.loads(GOOD.splitlines()[0])
    place = data.draw(st.sampled_from([document, document["server"], *document["sessions"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = value
    assert len(read(json.dumps(document).encode())) == 1


@pytest.mark.parametrize("starts", [("03:00:01", "03:00:02"), ("03:00:02", "03:00:01")])
def test_of_two_sessions_with_one_pid_the_later_counts(starts: tuple[str, str]) -> None:
    """A session ended during the read, and another one got its pid. The rows come in any order."""
    rows = [{"pid": 1, "backend_start": f"2026-11-21T{start}+00:00"} for start in starts]
    (poll,) = read(line_of(sessions=rows))
    assert isinstance(poll, RecordedPoll)
    assert isinstance(poll.outcome, Snapshot)
    assert [session.id for session in poll.outcome.sessions] == [SessionId(1, THREE + 2)]
