"""`pgwatch-sessions replay` as a process: its text, its events, its exit codes, and hostile recordings."""

import gzip
import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pgwatch_sessions.core.model import Failure, FailureReason, ServerInfo, SessionState, Snapshot
from pgwatch_sessions.recording import encode_poll
from tests.support.programs import PROGRAM, environment, finished
from tests.support.terminals import at_terminal
from tests.support.values import NOW, session, snapshot

RECORDINGS = Path(__file__).parent / "recordings"
LEAK = str(RECORDINGS / "leak.jsonl.gz")
HEALTHY = str(RECORDINGS / "healthy.jsonl.gz")
BY_HAND = str(RECORDINGS / "by_hand.jsonl")
#: Time is short in these recordings.
SCALED = ("--hold-limit", "5s", "--growth-window", "60s")
MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"


def events(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    """Replay with JSON output; return the events."""
    ended = finished("replay", "--format", "json", *arguments)
    assert ended.returncode == code, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def recording(folder: Path, polls: Iterable[tuple[float, Snapshot | Failure]], *, server: str = "shop") -> str:
    """Write polls, each with its time in seconds after NOW, as a recording; return its path."""
    file = folder / "made.jsonl"
    lines = [encode_poll(outcome, server=server, at=NOW + seconds) for seconds, outcome in polls]
    file.write_bytes(b"".join(lines))
    return str(file)


def polled(seconds: float, *, held_since: float | None = 0, started_at: float = NOW - 1e6) -> Snapshot:
    """Return a snapshot of an idle session, and of one that is idle in transaction unless `held_since` is None."""
    sessions = [session(1, query="ROLLBACK", since=NOW - 5)]
    if held_since is not None:
        sessions.append(session(2, SessionState.IDLE_IN_TRANSACTION, since=NOW + held_since))
    return snapshot(*sessions, at=NOW + seconds, server=ServerInfo(max_connections=100, started_at=started_at))


def test_the_text_shows_a_leak_from_its_opening_on() -> None:
    """The lines say when it opened, got worse and would have paged. The table at the end has its figures."""
    ended = finished("replay", LEAK, *SCALED)
    assert (ended.returncode, ended.stderr) == (1, "")
    timeline, _, summary = ended.stdout.partition("\n\n")
    lines = timeline.splitlines()
    assert all(re.match(rf"{MOMENT}  shop-db  ", line) for line in lines)
    who = re.escape("orders (shop, app)")
    expected = [
        r"up          the server can be polled: 7 of 37 connections in use",
        rf"notice      {who}: 1 session idle in transaction at /reports for 5 s; it may still end by itself",
        rf"(warning|critical) +{who}: \d sessions idle in transaction at /reports, .*; would have paged",
    ]
    places = [next(i for i, line in enumerate(lines) if re.search(rf"  shop-db  {text}$", line)) for text in expected]
    assert places == sorted(places)
    assert len(lines) < 12  # small changes get no line
    assert "shop-db: 75 polls; " in summary
    assert re.search(
        rf"critical  {who}  idle in transaction  /reports +12 +1\d\.\d  {MOMENT}  open +{MOMENT}\n", summary
    )
    assert "1 finding, 1 open at the end; the worst is critical.\nWould have paged once, at " in summary


def test_a_healthy_recording_has_no_findings() -> None:
    """The exit code is 0, and the diagnosis is ok."""
    ended = finished("replay", HEALTHY, *SCALED)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("  diagnosis at the end: ok\n\nNo findings.\n")


def test_events_as_json() -> None:
    """There is one event per line, with times of the recording's clock and the keys that other programs rely on."""
    found = events(LEAK, *SCALED, code=1)
    assert [event["event"] for event in found[:2]] == ["server_up", "leak_opened"]
    assert list(found[1]) == [
        "at", "event", "server", "message", "kind", "severity", "state", "database", "user", "application", "origin",
        "site", "sessions", "session_count", "rate_per_minute", "exhaustion_seconds", "blocked",
    ]  # fmt: skip
    assert (
        found[1].items()
        >= {
            "at": "2026-11-21T06:27:26.964101+00:00",
            "server": "shop-db",
            "message": (
                "orders (shop, app): 1 session idle in transaction at /reports for 5 s; it may still end by itself"
            ),
            "kind": "transaction_held",
            "severity": "notice",
            "database": "shop",
            "user": "app",
            "application": "orders",
            "site": "/reports",
            "exhaustion_seconds": None,
        }.items()
    )
    assert {event["severity"] for event in found if event["event"] == "leak_changed"} >= {"notice", "critical"}
    diagnosed = [event for event in found if event["event"] == "diagnosis_changed"]
    assert [(event.get("application"), event["diagnosis"]) for event in diagnosed] == [
        ("orders", "leaking"),
        (None, "leaking"),
    ]
    assert [event["at"] for event in found] == sorted(event["at"] for event in found)


@pytest.mark.parametrize("format_", ["text", "json"])
def test_other_settings_lead_to_another_result(format_: str) -> None:
    """With a hold limit of an hour it would not have paged. Options win over the environment."""
    env = environment(HOLD_LIMIT="5s", GROWTH_WINDOW="60s")
    command = ("replay", "--format", format_, LEAK)
    assert finished(*command, env=env).returncode == 1
    assert finished(*command, "--hold-limit", "1h", env=env).returncode == 0


def test_limits_of_places_come_from_the_configuration_file(tmp_path: Path) -> None:
    """A site that may be held for long is no finding there; a limit that is exceeded is named in each event."""
    config = tmp_path / "config.yaml"
    settings = ("--config", str(config), *SCALED)
    config.write_text("hold_limits: [{application: 'ord*', site: /reports, limit: 1h}]\n")
    assert [event["event"] for event in events(LEAK, *settings)] == ["server_up"]
    config.write_text("hold_limits: [{site: '/rep*', limit: 20s}]\n")
    opened = next(event for event in events(LEAK, *settings, code=1) if event["event"] == "leak_opened")
    assert opened["configured_limit_seconds"] == 20
    assert opened["message"].startswith("orders (shop, app): ")
    assert ", limit 20 s by configuration" in opened["message"]


def test_a_notice_is_shown_but_exits_with_0(tmp_path: Path) -> None:
    """One session held for a while is evidence only."""
    file = recording(tmp_path, [(seconds, polled(seconds)) for seconds in range(0, 100, 10)])
    assert [event["severity"] for event in events(file) if event["event"] == "leak_opened"] == ["notice"]
    assert (
        "1 finding, 1 open at the end; the worst is notice.\nNobody would have been paged.\n"
        in finished("replay", file).stdout
    )


def test_bad_lines_are_reported_and_the_rest_is_judged() -> None:
    """The exit code is 2, and standard error has the number of the line. The polls after it are judged."""
    ended = finished("replay", BY_HAND)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"pgwatch-sessions: error: {BY_HAND}: line 5: Invalid JSON: EOF while parsing a string at column 32\n"
    )
    refused = "it has no free connection slot and refuses new connections (exhausted)"
    assert (
        f"lab  down        the server cannot be polled: {refused}; leaks cannot be seen until it can\n" in ended.stdout
    )
    hidden = "sessions are hidden from the monitoring role: leaks among them cannot be seen"
    assert re.search(
        rf"lab  hidden      2 of \d {hidden}\. As a superuser, run: GRANT pg_monitor TO <monitoring role>;\n",
        ended.stdout,
    )
    assert "lab  clock       the clock stepped back by 11 s\n" in ended.stdout
    assert "lab: 3 polls, 1 of them failed (1 exhausted); " in ended.stdout
    assert "other: 1 poll; " in ended.stdout


def test_standard_input_is_read_like_a_file() -> None:
    """`-` reads plain text or gzip, with the same result."""
    for content in (Path(LEAK).read_bytes(), gzip.decompress(Path(LEAK).read_bytes())):
        ended = subprocess.run(
            [*PROGRAM, "replay", "-", *SCALED], input=content, env=environment(), capture_output=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (1, b"")
        assert ended.stdout.decode() == finished("replay", LEAK, *SCALED).stdout


def test_a_file_that_cannot_be_replayed(tmp_path: Path) -> None:
    """A missing file, a directory and an empty file are exit 2 with a line that says so."""
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for file, complaint in (
        (tmp_path / "missing.jsonl", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (empty, "the file has no poll; is it a recording?"),
    ):
        ended = finished("replay", str(file))
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"pgwatch-sessions: error: {file}: {complaint}\n"


@pytest.mark.promise("A file that it reads can neither end nor exhaust it.")
def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    """Opening a FIFO waits for a writer, and a device may never end. Standard input may be a pipe."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for file in (fifo, Path("/dev/zero")):
        ended = finished("replay", str(file))
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"pgwatch-sessions: error: {file}: not a regular file; ")


@pytest.mark.promise("A file that it reads can neither end nor exhaust it.")
def test_bombs_end_soon(tmp_path: Path) -> None:
    """Many blank lines, a line of a million sessions and the end of time are bad lines with their numbers."""
    newlines = tmp_path / "newlines.jsonl.gz"
    with gzip.open(newlines, "wb") as file:
        for _ in range(64):
            file.write(b"\n" * 2**20)
    ended = finished("replay", str(newlines))
    assert ended.returncode == 2
    assert "line 100001: no poll in the 100,000 lines before it; the rest of the file was not read" in ended.stderr
    lines = tmp_path / "lines.jsonl"
    with lines.open("wb") as file:
        file.write(b'{"taken_at": "2026-11-21T03:00:00Z", "sessions": [' + b'{"pid":1},' * 10**6 + b'{"pid":1}]}\n')
        file.write(b'{"taken_at": "9999-12-31T23:59:59-14:00", "sessions": []}\n')
        file.write(b'{"taken_at": "2026-11-21T03:00:00Z", "sessions": []}\n')
    ended = finished("replay", str(lines))
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert "line 1: sessions: Tuple should have at most 262144 items" in ended.stderr
    assert "line 2: taken_at: Input should be a time between the years 1970 and 2999" in ended.stderr
    assert "1 poll" in ended.stdout


def test_a_file_that_is_no_recording_has_few_errors(tmp_path: Path) -> None:
    """Ten lines are reported, the others counted."""
    file = tmp_path / "novel.txt"
    file.write_text("Once upon a time\n" * 1000)
    ended = finished("replay", str(file))
    assert (ended.returncode, ended.stdout) == (2, "")
    *reported, more, none = ended.stderr.splitlines()
    assert [line.split(": ")[3] for line in reported] == [f"line {number}" for number in range(1, 11)]
    assert more == f"pgwatch-sessions: error: {file}: 990 more lines cannot be read"
    assert none == f"pgwatch-sessions: error: {file}: the file has no poll; is it a recording?"


@pytest.mark.parametrize("arguments", [(), (LEAK, HEALTHY), (LEAK, "--format", "xml"), (LEAK, "--interval", "1s")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """The exit code is 2, and the usage is shown."""
    ended = finished("replay", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith("Try `pgwatch-sessions replay --help`.\n")


def test_jumps_of_the_clock_are_events(tmp_path: Path) -> None:
    """A gap, a clock set back and a restart of the server are one event each. An open finding stays one finding."""
    times = [*range(0, 90, 10), 690, 700, 710, 640, 650, 660]
    polls = [(float(at), polled(at)) for at in times]
    polls += [(float(at), polled(at, held_since=None, started_at=NOW + 665)) for at in range(670, 5000, 10)]
    found = events(recording(tmp_path, polls))
    jumps = {event["event"]: event for event in found if event["event"] not in {"server_up", "diagnosis_changed"}}
    assert jumps["polls_missing"]["seconds"] == 610
    assert jumps["clock_stepped_back"]["seconds"] == 70
    assert "server_restarted" in jumps
    names = [event["event"] for event in found]
    for name in ("polls_missing", "clock_stepped_back", "server_restarted", "leak_opened", "leak_closed"):
        assert names.count(name) == 1, name


def test_another_interval_is_no_gap(tmp_path: Path) -> None:
    """A longer interval is unusual at first, but soon becomes the usual one."""
    times = [*range(20), *range(20, 800, 20)]
    found = events(recording(tmp_path, [(float(at), polled(at, held_since=None)) for at in times]))
    assert [event["event"] for event in found].count("polls_missing") <= 4


def test_findings_stay_open_after_a_failed_poll(tmp_path: Path) -> None:
    """The failure is reported. The sessions of the finding may still be there."""
    down = Failure(reason=FailureReason.NETWORK, detail="connecting: refused")
    polls: list[tuple[float, Snapshot | Failure]] = [(float(at), polled(at)) for at in range(0, 90, 10)]
    polls += [(float(at), down) for at in range(90, 150, 10)]
    file = recording(tmp_path, polls)
    found = events(file)
    assert [event["reason"] for event in found if event["event"] == "server_down"] == ["network"]
    assert "leak_closed" not in {event["event"] for event in found}
    ended = finished("replay", file)
    text = "the server cannot be polled: it cannot be reached (network: connecting: refused); leaks cannot be seen"
    assert f"shop  down        {text} until it can\n" in ended.stdout
    assert "shop: 15 polls, 6 of them failed (6 network); " in ended.stdout
    assert "1 finding, 1 open at the end" in ended.stdout


def test_each_server_is_judged_by_itself(tmp_path: Path) -> None:
    """A file may hold the polls of two servers in turn."""
    file = tmp_path / "two.jsonl"
    with file.open("wb") as both:
        for at in range(0, 100, 10):
            both.write(encode_poll(polled(at), server="leaking", at=NOW))
            both.write(encode_poll(polled(at, held_since=None), server="clean", at=NOW))
    found = events(str(file))
    assert [event["server"] for event in found if event["event"] == "leak_opened"] == ["leaking"]
    assert sorted(event["server"] for event in found if event["event"] == "server_up") == ["clean", "leaking"]


SECRET = "s3cret@example.org"


@pytest.mark.promise("Literals of statements stay secret.")
@pytest.mark.parametrize("format_", ["text", "json"])
@pytest.mark.parametrize("statements", ["redacted", "off"])
def test_no_literal_and_no_control_character_comes_out(tmp_path: Path, format_: str, statements: str) -> None:
    """A recording made by hand may hold raw statements and hostile names. `--statements off` shows no statement."""
    rows = [
        {
            "pid": pid,
            "backend_start": "2026-11-21T03:00:00Z",
            "datname": "shop",
            "usename": "app\x1b[2J\u202e",
            "application_name": "orders\r\n\x07",
            "state": "idle in transaction",
            "state_change": f"2026-11-21T03:0{pid}:00Z",
            "query": f"SELECT * FROM customers WHERE email = '{SECRET}' /*route='/customers?mail={SECRET}'*/",
        }
        for pid in range(1, 6)
    ]
    file = tmp_path / "raw.jsonl"
    polls = [{"taken_at": f"2026-11-21T03:{minute}:00Z", "sessions": rows} for minute in range(10, 30)]
    file.write_text("".join(json.dumps(poll) + "\n" for poll in polls))
    ended = finished("replay", str(file), "--format", format_, "--statements", statements)
    assert ended.returncode == 1
    assert SECRET not in ended.stdout
    assert ("customers" in ended.stdout) == (statements == "redacted")
    assert all(character.isprintable() for character in ended.stdout.replace("\n", ""))


def test_a_terminal_shows_progress_on_a_long_file(tmp_path: Path) -> None:
    """The progress line is removed at the end. A pipe gets the events only."""
    file = tmp_path / "long.jsonl"
    file.write_bytes(gzip.decompress(Path(LEAK).read_bytes()) * 5)
    shown = at_terminal("replay", str(file), *SCALED, "--format", "json", pipe_output=True)
    assert shown.code == 1
    assert re.search(r"\[#*-+\] +\d+ %", shown.terminal)
    assert shown.terminal.endswith("\r\x1b[K")
    assert all(json.loads(line) for line in shown.piped.splitlines())
    whole = at_terminal("replay", str(file), *SCALED)
    assert "\x1b[31mcritical  \x1b[0m  orders (shop, app)" in whole.terminal
    assert "\x1b" not in finished("replay", str(file), *SCALED).stdout


def test_the_help_is_complete() -> None:
    """The help has examples, every threshold, and exit codes."""
    text = finished("replay", "--help").stdout
    for expected in ("examples:\n", "--hold-limit", "--growth-window", "--horizon", "--max-clients", "--statements"):
        assert expected in text
    assert "exit codes:\n  0  no finding of severity warning or worse\n  1  " in text
