import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
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
from pgwatch_sessions.core.statements import UNKNOWN_STATEMENT, parse_statement
from pgwatch_sessions.recording import BadLine, Poll, Recorder, open_recording, read_polls, written
from tests.support.polling import poll, seen
from tests.support.servers import Database
from tests.support.situations import aborted_transaction, idle, idle_in_transaction, waiting_for_lock
from tests.support.values import NOW, session, snapshot

BY_HAND = Path(__file__).parent / "recordings" / "by_hand.jsonl"
THREE = 1_795_230_000.0  # 2026-11-21T03:00:00Z


def read(content: bytes) -> list[Poll | BadLine]:
    """Return what a file of this content reads as."""
    return list(read_polls(io.BytesIO(content)))


def polls_in(*paths: Path) -> list[Poll]:
    """Return the polls of files that must have no bad line."""
    found = [item for path in paths for item in read(path.read_bytes())]
    assert all(isinstance(item, Poll) for item in found), found
    return [item for item in found if isinstance(item, Poll)]


def line_of(**keys: Any) -> bytes:
    """Write a poll without sessions, with these keys in place of its own."""
    return json.dumps({"taken_at": "2026-11-21T03:00:00Z", "sessions": []} | keys).encode()


# --- Reading ---


def test_a_recording_made_by_hand() -> None:
    """Polls in the order of the file, times exact, what is not told not known, what is no session left out."""
    first, failure, other, bad, last = read(BY_HAND.read_bytes())
    assert isinstance(first, Poll)
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

    assert failure == Poll(3, Failure(reason=FailureReason.EXHAUSTED), THREE + 12, "lab")
    assert other == Poll(4, Snapshot(taken_at=THREE + 22, server=ServerInfo(), sessions=()), THREE + 22, "other")
    assert bad == BadLine(5, "not JSON at column 14")
    assert isinstance(last, Poll)
    assert (last.number, last.server, last.taken_at) == (6, "lab", THREE + 1)


SECRET = "s3cret-s3cret"
BAD_LINES = [
    (f'{{"a": {SECRET}}}'.encode(), "not JSON at column 7"),
    (b'{"a": "\xff"}', "not UTF-8"),
    (rb'{"a": "\ud83d"}', "not UTF-8"),
    (b'{"a": NaN}', "a number that is none"),
    (b'{"a": ' + b"9" * 5000 + b"}", "a number that is none"),
    (b"[" * 100_000, "nested too deeply"),
    (f'"{SECRET}"'.encode(), "the line is not an object"),
    (line_of(taken_at=None), "taken_at is missing"),
    (line_of(taken_at="2026-11-21T03:00:00"), "taken_at is not a time with a time zone"),
    (line_of(taken_at=SECRET), "taken_at is not a time with a time zone"),
    (line_of(taken_at=1763694000), "taken_at is not a time"),
    (line_of(sessions=None), "neither sessions nor failure"),
    (line_of(sessions={}), "sessions is not a list"),
    (line_of(sessions=[SECRET]), "sessions[0] is not an object"),
    (line_of(sessions=[{"pid": 1}, {}]), "sessions[1]: pid is missing"),
    (line_of(sessions=[{"pid": 1}, {"pid": 1}]), "sessions[1]: pid stands twice"),
    (line_of(sessions=[{"pid": True}]), "sessions[0]: pid is not a whole number"),
    (line_of(sessions=[{"pid": 2**63}]), "sessions[0]: pid is not a whole number"),
    (line_of(sessions=[{"pid": 1, "state": SECRET}]), "sessions[0]: state is none of those that are known"),
    (line_of(sessions=[{"pid": 1, "query": [SECRET]}]), "sessions[0]: query is not a text"),
    (line_of(sessions=[{"pid": 1, "usename": "x" * 1001}]), "sessions[0]: usename is longer than 1000 characters"),
    (line_of(sessions=[{"pid": 1, "blocked_by": ["1"]}]), "sessions[0]: blocked_by is not a list of whole numbers"),
    (line_of(server={"role_limits": {SECRET: "x"}}), "role_limits is not a whole number"),
    (line_of(server=[]), "server is not an object"),
    (line_of(databases=[{"session_time": "1"}]), "session_time is not a number"),
    (line_of(failure={}), "failure.reason is missing"),
    (line_of(failure={"reason": SECRET}), "reason is none of those that are known"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason for _, reason in BAD_LINES])
def test_a_bad_line_is_named_and_the_next_is_read(line: bytes, reason: str) -> None:
    """The reason quotes nothing of the line."""
    bad, good = read(line + b"\r\n\n" + line_of())
    assert bad == BadLine(1, reason)
    assert isinstance(good, Poll)
    assert good.number == 3


def test_a_line_without_end_takes_no_memory() -> None:
    """What is longer than a line can be is skipped as it comes, also where a small file holds it compressed."""

    class Endless(io.RawIOBase):
        """200 MiB in one line, and a poll."""

        def __init__(self) -> None:
            self.left = 3200

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            assert size <= 2**20
            return b"x" * size if self.left > 0 else b"\n" + line_of() if self.left == 0 else b""

    packed = io.BytesIO()
    with gzip.open(packed, "wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(b"x" * 2**20)
        file.write(b"\n" + line_of())
    for source in (Endless(), io.BytesIO(packed.getvalue())):
        tracemalloc.start()
        bad, good = read_polls(source)  # type: ignore[arg-type]  # raw, but reads
        assert tracemalloc.get_traced_memory()[1] < 90 * 2**20
        tracemalloc.stop()
        assert bad == BadLine(1, "longer than 64 MiB")
        assert isinstance(good, Poll)


def test_sessions_that_did_not_change_are_the_same_objects() -> None:
    """From poll to poll of one server, so that a long recording is read fast and remembered cheaply."""
    rows = [{"pid": 1, "query": "SELECT 1"}, {"pid": 2, "query": "SELECT 2"}]
    lines = (
        line_of(sessions=rows),
        line_of(server={"name": "other"}, sessions=[{"pid": 1}]),
        line_of(server={"name": "(none)"}, sessions=[*rows[:1], {"pid": 2, "query": "SELECT b"}]),
    )
    first, _, third = (item.outcome for item in read(b"\n".join(lines)) if isinstance(item, Poll))
    assert isinstance(first, Snapshot)
    assert isinstance(third, Snapshot)
    assert third.sessions[0] is first.sessions[0]
    assert third.sessions[1].statement.text == "SELECT b"


GOOD = BY_HAND.read_bytes()
GOOD_COUNT = 5


@given(st.data())
def test_no_content_makes_the_reader_raise(data: st.DataObject) -> None:
    """Whatever is mutated, plain or compressed: every line is a poll or a bad line, numbered upwards."""
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
    """In place of any value of a real line."""
    document = json.loads(GOOD.splitlines()[0])
    place = data.draw(st.sampled_from([document, document["server"], *document["sessions"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = value
    assert len(read(json.dumps(document).encode())) == 1


# --- Compressed and cut ---


def test_compressed_data_is_read_up_to_where_it_ends(tmp_path: Path) -> None:
    """Cut anywhere: each whole line is read and the loss is named; there is none after the last whole line."""
    file = open_recording(tmp_path / "cut.jsonl.gz")
    ends = [0]
    for _ in range(5):
        file.write(line_of() + b"\n")
        ends.append(file.size)
    file.close()
    content = file.path.read_bytes()
    for cut in range(len(content)):
        items = read(content[:cut])
        polls = [item for item in items if isinstance(item, Poll)]
        assert len(polls) >= sum(end <= cut for end in ends) - 1
        if cut in ends:
            assert items == polls
        else:
            assert items == [*polls, BadLine(len(polls) + 1, "the gzip data ends too early")]
    assert len(polls_in(file.path)) == 5


def test_segments_of_killed_daemons_are_read_one_after_the_other(tmp_path: Path) -> None:
    """Put together with `cat`, with zeros between or not: nothing is lost where a flush ended the last line."""
    file = open_recording(tmp_path / "killed.jsonl.gz")
    for number in range(300):
        file.write(line_of(server={"name": f"{number} {os.urandom(200).hex()}"}) + b"\n")
    killed = file.path.read_bytes()
    file.close()
    together = tmp_path / "together.jsonl.gz"
    together.write_bytes(killed + killed + file.path.read_bytes() + b"\0" * 100_000 + killed)
    polls = polls_in(together)
    assert [int(found.server.split()[0]) for found in polls] == [*range(300)] * 4


def test_damaged_data_costs_lines_until_the_next_segment() -> None:
    """What stands before the damage is read, and what follows is found again."""
    lines = [line_of(server={"name": os.urandom(200).hex()}) for _ in range(300)]
    whole = gzip.compress(b"\n".join(lines) + b"\n")
    middle = len(whole) // 2
    items = read(whole[:middle] + b"\xff" * 9 + whole[middle:] + whole)
    bad = [item for item in items if isinstance(item, BadLine)]
    assert bad[-1].reason == "the gzip data is damaged"
    assert all(isinstance(item, Poll) for item in [*items[:100], *items[-300:]])
    assert [item.number for item in items] == list(range(1, len(items) + 1))

    stored = gzip.compress(b"\n".join(lines) + b"\n", 0)
    items = read(stored[: 10 + 5 + 2**16 - 1] + stored)  # header, and the first of the blocks
    (lost,) = [item for item in items if isinstance(item, BadLine)]
    assert lost == BadLine(len(items) - 300, "the gzip data is damaged")


# --- Writing ---

times = st.integers(-(10**15), 4 * 10**15).map(lambda microseconds: microseconds / 1e6)
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
    """Draw a session as a server could show it."""
    statement = draw(statements)
    state = draw(st.sampled_from([None, *SessionState]))
    # A hidden session always has a database and a user: what has none is a background process.
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
def test_what_is_written_reads_as_it_was(outcome: Snapshot | Failure, at: float, server: str) -> None:
    """Exactly, so that a replay says what the daemon said."""
    line = written(outcome, server=server, at=at)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    taken_at = outcome.taken_at if isinstance(outcome, Snapshot) else at
    assert read(line) == [Poll(1, outcome, taken_at, server)]


def test_a_real_poll_reads_as_it_was(database: Database) -> None:
    """Blocked, aborted, held and unused sessions of a real server, its counters and our own session included."""
    dsn = database.dsn(application_name="orders")
    with waiting_for_lock(dsn), aborted_transaction(dsn), idle(dsn), idle_in_transaction(dsn, "SELECT %s::int", 4711):
        outcome = seen(poll(database.dsn()))
    line = written(outcome, server="db", at=NOW)
    assert b"4711" not in json.dumps([row["query"] for row in json.loads(line)["sessions"]]).encode()
    assert read(line) == [Poll(1, outcome, outcome.taken_at, "db")]


def test_a_line_has_the_keys_of_pg_stat_activity() -> None:
    """Each session in full, and no text that is not known."""
    line = json.loads(written(snapshot(session(state=None)), server="db", at=NOW))
    assert list(line["sessions"][0]) == list(json.loads(GOOD.splitlines()[0])["sessions"][0])
    assert line["sessions"][0]["query"] is None


# --- Files ---


def test_a_recording_is_for_its_owner_and_not_overwritten(tmp_path: Path) -> None:
    """Unless told to; the name decides whether it is compressed."""
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    for path in (plain, packed):
        with open_recording(path) as file:
            file.write(line_of() + b"\n")
        with pytest.raises(FileExistsError):
            open_recording(path)
        assert len(polls_in(path)) == 1
        assert path.stat().st_mode & 0o777 == 0o600
        with open_recording(path, overwrite=True):
            pass
        assert polls_in(path) == []
    assert plain.read_bytes() == b""
    assert gzip.decompress(packed.read_bytes()) == b""


def segments(directory: Path) -> list[Path]:
    """Return the files of a directory, oldest first."""
    return sorted(directory.iterdir())


def incompressible(number: int) -> Snapshot:
    """Make a snapshot that takes about 2 kB, compressed or not."""
    return snapshot(*(session(pid, query=f"SELECT t{os.urandom(16).hex()}") for pid in range(60)), at=NOW + number)


def test_recordings_stay_within_their_room(tmp_path: Path) -> None:
    """The oldest segments go first, also those of earlier runs; what is no segment is let alone."""
    room = 50_000
    directory = tmp_path / "made" / "here"
    directory.mkdir(parents=True)
    (directory / "notes.txt").write_bytes(b"x" * room)
    for run in range(2):
        recorder = Recorder(directory, max_bytes=room)
        for number in range(run * 100, run * 100 + 100):
            recorder.record("db/1", incompressible(number), at=NOW + number)
            recorder.record("db 1", incompressible(number), at=NOW + number)
            assert sum(path.stat().st_size for path in segments(directory) if path.suffix == ".gz") <= room
        recorder.close()
    recorded = [path for path in segments(directory) if path.suffix == ".gz"]
    assert sum(path.stat().st_size for path in recorded) > room * 3 / 4
    for server in ("db/1", "db 1"):
        taken = [found.taken_at for found in polls_in(*recorded) if found.server == server]
        assert taken == [NOW + number for number in range(200 - len(taken), 200)]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in recorded)
    assert (directory / "notes.txt").exists()


def test_a_segment_ends_after_an_hour(tmp_path: Path) -> None:
    """Also when the clock is set back, even to the time that a segment has in its name."""
    recorder = Recorder(tmp_path / "new", max_bytes=2**20)
    for at in (NOW, NOW + 3599, NOW + 3600, NOW + 3601, NOW - 3600, NOW):
        recorder.record("../..", Failure(reason=FailureReason.EXHAUSTED), at=at)
    recorder.close()
    found = segments(tmp_path / "new")
    assert [len(polls_in(path)) for path in found] == [3, 1, 2]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


RECORDING = """
import resource, signal, sys
from pathlib import Path
from pgwatch_sessions.recording import Recorder
from tests.support.values import NOW
from tests.test_recording import incompressible

recorder = Recorder(Path(sys.argv[1]), max_bytes=2**20)
"""


def run_recording(directory: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has a recorder."""
    return subprocess.run(
        [sys.executable, "-c", RECORDING + program, str(directory)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_daemon_loses_nothing(tmp_path: Path) -> None:
    """Each poll is in the file when it is recorded, and later segments stand beside."""
    program = """
for number in range(5):
    recorder.record("db", incompressible(number), at=NOW)
signal.raise_signal(signal.SIGKILL)
"""
    for killed in (1, 2):
        assert run_recording(tmp_path, program).returncode == -signal.SIGKILL
        assert len(polls_in(*segments(tmp_path))) == 5 * killed


def test_a_full_disk_costs_polls_and_nothing_else(tmp_path: Path) -> None:
    """The error is raised; what was recorded is whole, and recording goes on when there is room again."""
    program = """
number = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    while True:
        recorder.record("db", incompressible(number), at=NOW + number)
        number += 1
except OSError:
    print(number)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        recorder.record("db", incompressible(number), at=NOW + number)
    except OSError:
        print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.record("db", incompressible(number), at=NOW + number)
recorder.close()
"""
    ran = run_recording(tmp_path, program)
    assert ran.returncode == 0, ran.stderr
    recorded, *full = ran.stdout.split()
    assert full == ["full", "full"]
    assert int(recorded) > 0
    assert [len(polls_in(path)) for path in segments(tmp_path)] == [int(recorded), 1]


def test_what_the_system_refuses_is_raised(tmp_path: Path) -> None:
    """As OSError at each poll, so that recording goes on once it can."""
    (tmp_path / "file").touch()
    nowhere = Recorder(tmp_path / "file" / "x", max_bytes=2**20)
    for _ in range(2):
        with pytest.raises(NotADirectoryError):
            nowhere.record("db", Failure(reason=FailureReason.EXHAUSTED), at=NOW)
    (tmp_path / "file").unlink()
    nowhere.record("db", Failure(reason=FailureReason.EXHAUSTED), at=NOW)
    nowhere.close()
    assert len(polls_in(*segments(tmp_path / "file" / "x"))) == 1

    small = Recorder(tmp_path / "small", max_bytes=500)
    small.record("db", Failure(reason=FailureReason.EXHAUSTED), at=NOW)
    with pytest.raises(OSError, match="more room") as refused:
        small.record("db", incompressible(1), at=NOW + 1)
    assert refused.value.errno == errno.EFBIG
    small.record("db", Failure(reason=FailureReason.EXHAUSTED), at=NOW + 2)
    small.close()
    assert len(polls_in(*segments(tmp_path / "small"))) == 2
