import json

from hypothesis import example, given
from hypothesis import strategies as st

from pgwatch_sessions.core.client_names import client_of, tagged_application
from pgwatch_sessions.core.model import (
    Client,
    ConnectionLimit,
    DatabaseCounters,
    Failure,
    FailureReason,
    LimitScope,
    ServerInfo,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.recording import RecordedPoll, encode_poll
from tests.support.polling import poll, seen
from tests.support.recording_contents import BY_HAND, read
from tests.support.servers import Database
from tests.support.situations import aborted_transaction, idle, idle_in_transaction, waiting_for_lock
from tests.support.values import NOW, session, snapshot

times = st.integers(0, 4 * 10**15).map(lambda microseconds: microseconds / 1e6)
counts = st.integers(0, 2**53)
printable = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["(none)", "orders", "a - h:1 - h:2", " - 10.0.0.1:5432", "a\tb"]
)
statements = (st.text(st.characters(exclude_categories=["Cs"])) | st.none()).map(parse_statement) | st.sampled_from(
    [
        "SELECT * FROM a WHERE b = 'c' AND d IN (1, 2)",
        "/*application='billing',route='/a/%7Bb%7D'*/ SELECT 1",
        "ROLLBACK;",
        "SELECT 'cut",
        "-- ping",
    ]
).map(parse_statement)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Draw a session that a server could show."""
    statement = draw(statements)
    state = draw(st.sampled_from([None, *SessionState]))
    # A hidden session always has a database and a user; a row without them is a background process.
    database, user = draw(st.tuples(names, names) if state else st.just(("shop", "app")))
    optional_text, optional_time, optional_count = st.none() | printable, st.none() | times, st.none() | counts
    return Session(
        id=SessionId(draw(st.integers(1, 2**31)), draw(optional_time)),
        client=client_of(database, user, draw(names), tagged_application(statement)),
        client_addr=draw(optional_text),
        client_port=draw(st.none() | st.integers(-1, 65535)),
        state=state,
        state_change=draw(optional_time),
        xact_start=draw(optional_time),
        query_start=draw(optional_time),
        wait_event_type=draw(optional_text),
        wait_event=draw(optional_text),
        backend_xid_age=draw(optional_count),
        backend_xmin_age=draw(optional_count),
        blocked_by=tuple(draw(st.lists(counts, max_size=2))),
        statement=statement,
    )


limits = st.lists(st.builds(ConnectionLimit, names, counts), max_size=2, unique_by=lambda limit: limit.name).map(tuple)
seconds = st.integers(0, 10**15).map(lambda microseconds: microseconds / 1000 / 1000)
snapshots = st.builds(
    Snapshot,
    taken_at=times,
    server=st.builds(
        ServerInfo,
        version_num=st.none() | counts,
        in_recovery=st.none() | st.booleans(),
        started_at=st.none() | times,
        max_connections=st.none() | counts,
        superuser_reserved_connections=counts,
        reserved_connections=counts,
        role_limits=limits,
        database_limits=limits,
    ),
    sessions=st.lists(sessions(), max_size=3, unique_by=lambda one: one.id.pid).map(tuple),
    own_user=st.none() | names,
    own_database=st.none() | names,
    databases=st.lists(
        st.builds(
            DatabaseCounters,
            database=names,
            established=counts,
            abandoned=counts,
            fatal=counts,
            killed=counts,
            session_seconds=seconds,
            active_seconds=seconds,
            idle_in_transaction_seconds=seconds,
        ),
        max_size=2,
    ).map(tuple),
)
failures = st.builds(
    Failure,
    reason=st.sampled_from(FailureReason),
    detail=printable,
    exhausted_scope=st.none() | st.sampled_from(LimitScope),
)
HOSTILE = session(client=Client("(none)", "\\", 'a"\n - h:1 - h:2'), query="SELECT 1 -- \ud800")


@given(snapshots | failures, times, printable.filter(bool))
@example(snapshot(HOSTILE), NOW, "db")
def test_polls_are_read_back_exactly(outcome: Snapshot | Failure, at: float, server: str) -> None:
    """A replay can only say what the daemon said if every value is the same."""
    line = encode_poll(outcome, server=server, at=at)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    taken_at = outcome.taken_at if isinstance(outcome, Snapshot) else at
    assert read(line) == [RecordedPoll(1, outcome, taken_at, server)]


def test_poll_of_a_real_server_is_read_back_exactly(database: Database) -> None:
    """With blocked, aborted, held and unused sessions, the server's counters, and our own session."""
    dsn = database.dsn(application_name="orders")
    with waiting_for_lock(dsn), aborted_transaction(dsn), idle(dsn), idle_in_transaction(dsn, "SELECT %s::int", 4711):
        outcome = seen(poll(database.dsn()))
    line = encode_poll(outcome, server="db", at=NOW)
    assert b"4711" not in json.dumps([row["query"] for row in json.loads(line)["sessions"]]).encode()
    assert read(line) == [RecordedPoll(1, outcome, outcome.taken_at, "db")]


def test_line_has_the_keys_of_pg_stat_activity() -> None:
    """Each session has all keys; an unknown statement is null."""
    line = json.loads(encode_poll(snapshot(session(state=None)), server="db", at=NOW))
    assert list(line["sessions"][0]) == list(json.loads(BY_HAND.read_bytes().splitlines()[0])["sessions"][0])
    assert line["sessions"][0]["query"] is None
