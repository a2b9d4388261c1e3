"""Whatever comes from outside, made up by hypothesis: the daemon neither raises, hangs, nor shows a secret.

`make fuzz` tries more. What it finds is kept as an example.
"""

import asyncio
import contextlib
import copy
import gzip
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pgwatch_sessions.commands.replay.polls import replay, replay_event_fields, replay_line
from pgwatch_sessions.commands.replay.report import ReplayReport
from pgwatch_sessions.commands.replay.summary import summary_lines
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.core.statements.commands import NO_SQL
from pgwatch_sessions.core.statements.redaction import Comment
from pgwatch_sessions.core.statements.statement import MAX_INPUT_LENGTH
from pgwatch_sessions.core.statements.tags import KEYS, MAX_VALUE_LENGTH, tags_of, written
from pgwatch_sessions.demo.postgres import Postgres
from pgwatch_sessions.memory.saved_state import UnusableStateError, decode_state, encode_state
from pgwatch_sessions.postgres.rows import sessions_of
from pgwatch_sessions.recording import BadLine, encode_poll, read_polls
from pgwatch_sessions.settings.errors import SettingsError
from pgwatch_sessions.terminal import paint_for
from tests.security.canaries import Canary, statements
from tests.support.given_settings import loaded
from tests.support.polling import held
from tests.support.recording_contents import BY_HAND
from tests.support.states import leaking
from tests.support.values import NOW
from tests.support.web import answer_to, served

pytestmark = pytest.mark.fuzz

#: The fixtures are the same for all examples.
shared = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

# --- Statements ---

_HIDDEN = [
    each
    for each in statements()
    if not each.stands_alone and not each.name.startswith(("cut", "unclosed", "line comment", "number in a route"))
]
_GLUE = st.sampled_from([" ", ";", "; ", "\n", " /* x */ ", "\n--x\n", " UNION ", ")", ",", "(", "::text "])


@given(st.lists(st.tuples(st.sampled_from(_HIDDEN), _GLUE), min_size=1, max_size=6), st.data())
def test_no_secret_of_joined_and_cut_statements_comes_out(
    pieces: list[tuple[Canary, str]], data: st.DataObject
) -> None:
    """Statements one behind the other, with anything between them, cut anywhere."""
    whole = "".join(canary.planted + glue for canary, glue in pieces)
    statement = parse_statement(whole[: data.draw(st.integers(0, len(whole)))])
    out = f"{statement.text} {statement.summary} {statement.site} {statement.recordable} {statement.code_line}"
    assert [canary.name for canary, _ in pieces if canary.secret in out] == []


_PIECES = st.sampled_from([
    "'", "''", "E'", "U&'", "$$", "$a$", '"', "--", "/*", "*/", "\\", "?", "1e", "0x", ".", "$1", "::", "SELECT", "SET",
    "FROM", "=", ";", "/*a='b'*/", "'\\''", "\n", "\0", " ", "é", "\u202e", "\ud800", "\x85",
])  # fmt: skip


@given(st.lists(_PIECES | st.text(max_size=5), max_size=60).map("".join))
@example("1" * 9000)
def test_a_statement_is_bounded_and_redacted_once(sql: str) -> None:
    """Nothing raises. The text is never longer than what was read of it, and redacting it again changes nothing."""
    statement = parse_statement(sql)
    longest = min(len(sql), MAX_INPUT_LENGTH) + 1  # … shows that a rest was left out
    assert len(statement.text) <= longest or statement.text == NO_SQL
    assert parse_statement(statement.text).text == statement.text


_TAG = st.sampled_from([*sorted(KEYS), "x", "%", "traceparent"])
_VALUE = st.text(max_size=20) | st.sampled_from(
    ["%27", "%00", "%ED%A0%80", "\\'", "'", '"', "a" * 500, "%%41", ":in `"]
)
_PAIR = st.builds("{}{}{}{}{}".format, _TAG, st.sampled_from("=:"), st.sampled_from(["'", '"', ""]), _VALUE, _PIECES)


@given(st.lists(st.builds(Comment, st.lists(_PAIR | st.text(max_size=9)).map(",".join), st.booleans()), max_size=3))
def test_tags_are_known_printable_and_written_as_they_were_read(comments: list[Comment]) -> None:
    """Any comment has such tags, or none."""
    tags = tags_of(comments)
    for key, value in tags:
        assert key in KEYS
        assert 0 < len(value) <= MAX_VALUE_LENGTH
        assert value.isprintable()
    assert tags_of([Comment(written(tags).removeprefix("/*").removesuffix("*/"), complete=True)]) == tags


# --- Files ---

_TIMES = st.sampled_from(
    ["1970-01-01T00:00:00Z", "2999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]
) | st.datetimes().map(lambda time: f"{time.isoformat()}Z")
_NUMBERS = st.integers() | st.sampled_from([0, -1, 2**31, 2**63 - 1, -(2**63) + 1, 10**400, 1.5, 1e308])
_LEAVES = st.none() | st.booleans() | _NUMBERS | st.text(max_size=9) | _TIMES | st.just("idle in transaction")
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def places_in(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a JSON document: an object or a list, and the key or index in it."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield document, key
        if isinstance(value, dict | list):
            yield from places_in(value)


def changed(document: Any, data: st.DataObject, *, most: int, values: st.SearchStrategy[Any] = _VALUES) -> Any:
    """Return a copy in which a few values are others."""
    other = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(0, most))):
        holder, key = data.draw(st.sampled_from(list(places_in(other))))
        holder[key] = copy.deepcopy(data.draw(values))  # `just` gives the same list each time
    return other


_LINES = [json.loads(line) for line in BY_HAND.read_bytes().splitlines() if line.endswith(b"}")]


@given(st.data())
def test_any_recording_is_replayed(data: st.DataObject) -> None:
    """Every value of a recording may be another one of any type: what can be read is judged and put into words."""
    lines = [changed(data.draw(st.sampled_from(_LINES)), data, most=4) for _ in range(data.draw(st.integers(1, 6)))]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    report = ReplayReport()
    for each in replay(read_polls(BufferedReader(BytesIO(content))), Policy()):
        if not isinstance(each, BadLine):
            report.add(each)
            for event in each.events:
                assert replay_line(event, at=each.at).text
                json.dumps(replay_event_fields(event))
    with (Path("/dev/null")).open("w") as nowhere:
        assert list(summary_lines(report, paint_for(nowhere))) is not None


_STATE: dict[str, Any] = json.loads(gzip.decompress(encode_state(leaking(), statements="redacted")))
_STATE_VALUES: st.SearchStrategy[Any] = _VALUES | st.just([[[[[[]]]]]]) | st.just({"$": 0})


@given(st.data())
@example(data=None)
def test_any_state_is_read_or_refused(data: st.DataObject | None) -> None:
    """Every value of a state file may be another one of any type, and its checksum right."""
    document = _STATE | {
        "state": _STATE["state"] if data is None else changed(_STATE["state"], data, most=3, values=_STATE_VALUES)
    }
    content = gzip.compress(json.dumps(document).encode(), 1)
    with contextlib.suppress(UnusableStateError):
        assert isinstance(decode_state(content, server="orders-db", statements="redacted"), ServerState)


_EXAMPLE = (Path(__file__).parents[2] / "config" / "pgwatch-sessions.example.yaml").read_text(encoding="utf-8")
_SETTINGS = re.findall(r"^(?:# )?([a-z_]+):", _EXAMPLE, re.MULTILINE)
_YAML = st.sampled_from(["[", "{", "- ", "&a ", "*a", "!!python/name:os.system ", "1s", "'", "| ", "<<: ", "0x10", "~"])
_ENTRY = st.builds(
    "{}: {}".format, st.sampled_from([*_SETTINGS, "servers", "x"]), st.lists(_YAML | st.text(max_size=8)).map("".join)
)


@shared
@given(st.lists(_ENTRY | st.text(max_size=12), max_size=5).map("\n".join))
@example("tools: ")
@example("interval: 1e999s")
@example("servers: [{dsn: 'postgresql://u:canary@/?host=%00'}]")
def test_any_configuration_is_loaded_or_refused(tmp_path: Path, text: str) -> None:
    """A wrong configuration is a SettingsError, whose lines name their places."""
    assume("\ud800" not in text)
    config = tmp_path / "config.yaml"
    config.write_bytes(text.encode("utf-8", "replace"))
    refusal: SettingsError | None = None
    try:
        loaded({"config": str(config)})
    except SettingsError as error:
        refusal = error
    assert refusal is None or all(str(each).strip() for each in refusal.errors)
    assert "canary" not in str(refusal)


# --- Sockets ---

_PARTS = st.sampled_from([
    b"GET ", b"HEAD ", b"POST ", b"/metrics", b"/", b"/api/v1/leaks?limit=", b"?", b"%00", b"%ff", b"..", b" HTTP/1.1",
    b" HTTP/1.0", b" HTTP/9.9", b"\r\n", b"\n", b"\r\n\r\n", b"Host: x", b"Accept: ", b"Accept-Encoding: gzip;q=",
    b"*/*", b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: close", b"Upgrade: h2c", b"-1", b": ",
    b"\0", b"Authorization: Basic ", b"Expect: 100-continue", b"\x16\x03\x01", b"PRI * HTTP/2.0", b"a" * 20_000,
])  # fmt: skip
_REQUEST = st.lists(_PARTS | st.binary(max_size=20), max_size=14).map(b"".join)


def test_any_bytes_to_the_http_server(caplog: pytest.LogCaptureFixture) -> None:
    """Each connection gets an answer of HTTP or none, and is closed; nothing is logged; the next client is served."""
    with asyncio.Runner() as runner:
        web = served()
        client = runner.run(web.__aenter__())

        @given(_REQUEST)
        @example(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \xff\r\n\r\n")
        def send(request: bytes) -> None:
            answer = runner.run(answer_to(client, request + b"\r\nConnection: close\r\n\r\n"))
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
            assert b"Traceback" not in answer

        try:
            send()
            assert runner.run(client.get("/healthz")).status_code == 200
        finally:
            runner.run(web.__aexit__(None, None, None))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@asynccontextmanager
async def changed_answers(server: Postgres, changes: Mapping[int, int]) -> AsyncIterator[int]:
    """Yield a port behind which the server's answers differ: some bytes, by their places, are combined by XOR."""
    ends: list[asyncio.StreamWriter] = []

    async def forward(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        answers, to_server = await asyncio.open_connection(server.host, server.port)
        ends.extend((to_client, to_server))
        onward = asyncio.create_task(pump(client, to_server, {}))
        await pump(answers, to_client, changes)
        to_client.transport.abort()
        onward.cancel()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, changes: Mapping[int, int]) -> None:
        place = 0
        with contextlib.suppress(ConnectionError):
            while data := bytearray(await source.read(65536)):
                for index, number in changes.items():
                    if place <= index < place + len(data):
                        data[index - place] ^= number
                place += len(data)
                target.write(data)

    listener = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield int(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        for end in ends:
            end.transport.abort()


def test_any_answer_of_a_server_is_a_poll_or_a_failure(postgres: Postgres) -> None:
    """Some bytes of what a real server answers are others. What is read of it can be judged, recorded and kept."""
    with asyncio.Runner() as runner:

        async def polled(changes: Mapping[int, int]) -> Snapshot | Failure:
            async with changed_answers(postgres, changes) as port:
                dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
                async with held(dsn, deadline=0.5) as connection:
                    return await connection.poll()

        @settings(max_examples=settings().max_examples // 2)
        @given(st.dictionaries(st.integers(0, 9000), st.integers(1, 255), min_size=1, max_size=4))
        def answer(changes: Mapping[int, int]) -> None:
            outcome = runner.run(polled(changes))
            assert isinstance(outcome, Snapshot | Failure)
            if isinstance(outcome, Failure):
                assert len(outcome.detail) < 500
            else:
                use(outcome)

        answer()
        assert isinstance(runner.run(polled({})), Snapshot)


#: The columns of a session that may be NULL.
_COLUMNS = (
    "application_name", "backend_start", "backend_xid_age", "backend_xmin_age", "blocked_by", "client_addr",
    "client_port", "datname", "hidden", "own", "query", "query_start", "state", "state_change", "usename",
    "wait_event", "wait_event_type", "xact_start",
)  # fmt: skip


def use(polled: Snapshot) -> None:
    """Do with a poll what the daemon does with it."""
    state, _ = advance(ServerState(server="db"), polled, policy=Policy(), at=NOW, duration=0.1)
    encode_poll(polled, server="db", at=NOW)
    encode_state(state, statements="redacted")


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1.0, -62135596801.0, 253402300800.0, 1e18])
@pytest.mark.parametrize("name", ["backend_start", "state_change", "xact_start", "query_start"])
def test_a_time_that_cannot_be_is_the_servers_failure(name: str, time: float) -> None:
    """No server has the year 10000. Reading the rows raises, which makes the poll a failure of that server."""
    row = {**dict.fromkeys(_COLUMNS), "pid": 1, name: time}
    with pytest.raises(ValueError, match="a time that is not between the years 1970 and 2999"):
        sessions_of([row], {}, parse=parse_statement)
