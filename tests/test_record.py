"""Recording, as processes: `pgwatch-sessions record`, and the daemon with `record_dir`."""

import asyncio
import gzip
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Failure, FailureReason, SessionState, Snapshot
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.disk_writes import DiskThread
from pgwatch_sessions.poller import Poller
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.recording import RecordedPoll, read_polls
from tests.support.daemons import daemon, own_sessions
from tests.support.programs import PROGRAM, environment, finished
from tests.support.servers import Database, OwnPostgresFactory
from tests.support.situations import idle_in_transaction
from tests.support.terminals import at_terminal
from tests.support.waiting import until

SECRET = "s3cret@example.org"
LEAKED = f"SELECT '{SECRET}' AS email /*route='/orders/{{id}}'*/"
FAST = ("--interval", "100ms")


def polls_in(file: Path) -> list[RecordedPoll]:
    """Return the polls of a file, which must have no bad line."""
    with file.open("rb") as source:
        found = list(read_polls(source))
    assert all(isinstance(poll, RecordedPoll) for poll in found), found
    return [poll for poll in found if isinstance(poll, RecordedPoll)]


@contextmanager
def recording(*arguments: str, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run `record` while inside."""
    command = [*PROGRAM, "record", *arguments]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_count_polls_are_recorded_and_redacted(database: Database, tmp_path: Path) -> None:
    """The file has every session without literals, and replay finds the leak in it."""
    file = tmp_path / "three.jsonl.gz"
    with idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED) as pid:
        ended = finished("record", "--out", str(file), "--count", "12", *FAST, env=environment(DSN=database.dsn()))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == f"pgwatch-sessions: recorded 12 polls to {file}\n"
    polls = polls_in(file)
    assert len(polls) == 12
    for poll in polls:
        assert isinstance(poll.outcome, Snapshot)
        (held,) = [each for each in poll.outcome.sessions if each.id.pid == pid]
        assert (held.state, held.client.application) == (SessionState.IDLE_IN_TRANSACTION, "orders-api")
        assert held.statement.site == "/orders/{id}"
    assert SECRET.encode() not in gzip.decompress(file.read_bytes())
    replayed = finished("replay", str(file), "--hold-limit", "1s")
    assert f"notice      orders-api ({database.name}, postgres): 1 session idle in transaction" in replayed.stdout
    until(lambda: own_sessions(database.dsn()) == 0)


def test_without_statements_no_text_is_in_the_file(database: Database, tmp_path: Path) -> None:
    """With `statements: off` only the tags of a statement are recorded."""
    file = tmp_path / "one.jsonl"
    env = environment(DSN=database.dsn(), STATEMENTS="off")
    with idle_in_transaction(database.dsn(), "SELECT 1 AS rarely_named"):
        assert finished("record", "--out", str(file), "--count", "1", env=env).returncode == 0
    assert b"rarely_named" not in file.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_the_recording(database: Database, tmp_path: Path, number: signal.Signals) -> None:
    """The exit code is 0, the file is complete, and no session is left on the server."""
    file = tmp_path / "night.jsonl.gz"
    with recording("--out", str(file), *FAST, env=environment(DSN=database.dsn())) as process:
        until(lambda: file.exists() and len(polls_in(file)) >= 2)
        process.send_signal(number)
        _, output = process.communicate(timeout=5)
    assert process.returncode == 0
    assert output.startswith("pgwatch-sessions: recorded ")
    assert output.endswith(f" polls to {file}\n")
    assert len(gzip.decompress(file.read_bytes()).splitlines()) == len(polls_in(file)) >= 2
    until(lambda: own_sessions(database.dsn()) == 0)


def test_a_signal_in_the_middle_of_a_poll_that_hangs(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """The recording does not wait for a server that does not answer. The polls before it are complete."""
    server = own_postgres()
    file = tmp_path / "night.jsonl.gz"
    env = environment(DSN=server.dsn(), TIMEOUT="60s")
    with recording("--out", str(file), *FAST, env=env) as process:
        until(lambda: file.exists() and len(polls_in(file)) >= 1)
        server.freeze()
        try:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=5)
        finally:
            server.thaw()
    assert process.returncode == 0
    assert gzip.decompress(file.read_bytes()).endswith(b"\n")


def test_failures_are_recorded_and_the_polls_go_on(own_postgres: OwnPostgresFactory, tmp_path: Path) -> None:
    """A server that goes down is reported once, and its failures are in the file. Polling goes on until it is back."""
    server = own_postgres()
    file = tmp_path / "outage.jsonl"
    with recording("--out", str(file), *FAST, env=environment(DSN=server.dsn(), NAME="shop")) as process:
        until(lambda: file.exists() and polls_in(file))
        server.stop()
        until(lambda: isinstance(polls_in(file)[-1].outcome, Failure))
        server.start()
        until(lambda: isinstance(polls_in(file)[-1].outcome, Snapshot))
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=5)
    assert process.returncode == 0
    reasons = {poll.outcome.reason for poll in polls_in(file) if isinstance(poll.outcome, Failure)}
    assert FailureReason.NETWORK in reasons
    assert 1 <= output.count("pgwatch-sessions: shop: cannot poll this server: ") <= 3
    assert " of them failed to " in output


def test_if_every_poll_failed_the_exit_code_is_3(tmp_path: Path) -> None:
    """The file has the failures."""
    file = tmp_path / "nothing.jsonl"
    dsn = "postgresql://postgres@127.0.0.1:1/postgres"
    ended = finished("record", "--out", str(file), "--count", "2", *FAST, "--dsn", dsn)
    assert ended.returncode == 3
    assert "127.0.0.1:1: cannot poll this server: it cannot be reached (network: " in ended.stderr
    assert [isinstance(poll.outcome, Failure) for poll in polls_in(file)] == [True, True]


def test_several_servers_go_into_one_file(database: Database, tmp_path: Path) -> None:
    """Each poll names its server. If one is down, the other is still polled."""
    config, file = tmp_path / "two.yaml", tmp_path / "two.jsonl"
    config.write_text(f"""\
servers:
  - {{name: down, dsn: "postgresql://postgres@127.0.0.1:1/postgres"}}
  - {{name: shop, dsn: "{database.dsn()}"}}
""")
    ended = finished("record", "--config", str(config), "--out", str(file), "--count", "2", *FAST)
    assert ended.returncode == 0
    found = [(poll.server, isinstance(poll.outcome, Snapshot)) for poll in polls_in(file)]
    assert found == [("down", False), ("shop", True)] * 2


def test_an_existing_file_is_overwritten_with_force_only(database: Database, tmp_path: Path) -> None:
    """Without `--force` the exit code is 2, and the file keeps its content."""
    file = tmp_path / "kept.jsonl"
    file.write_text("dear\n")
    command = ("record", "--out", str(file), "--count", "1", "--dsn", database.dsn())
    ended = finished(*command)
    assert (ended.returncode, file.read_text()) == (2, "dear\n")
    assert ended.stderr == f"pgwatch-sessions: error: {file}: the file exists; overwrite it with --force\n"
    assert finished(*command, "--force").returncode == 0
    assert len(polls_in(file)) == 1


@pytest.mark.parametrize("arguments", [(), ("--out", "x", "--count", "0"), ("--out", "x", "--hold-limit", "1s")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """The exit code is 2, and no file is made."""
    ended = finished("record", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "error: " in ended.stderr
    assert not Path("x").exists()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A missing directory and a full disk are exit 2 with the system's reason."""
    dsn = "postgresql://postgres@127.0.0.1:1/postgres"
    missing = tmp_path / "missing" / "night.jsonl"
    ended = finished("record", "--out", str(missing), "--dsn", dsn)
    assert ended.returncode == 2
    assert ended.stderr == f"pgwatch-sessions: error: {missing}: No such file or directory\n"
    ended = finished("record", "--out", "/dev/full", "--force", "--dsn", dsn)
    assert ended.returncode == 2
    assert ended.stderr.endswith("pgwatch-sessions: error: /dev/full: No space left on device\n")


def test_a_terminal_shows_progress(database: Database, tmp_path: Path) -> None:
    """The line has the number of polls and the size of the file, and is removed at the end."""
    file = tmp_path / "three.jsonl"
    shown = at_terminal(
        "record", "--out", str(file), "--count", "3", "--interval", "100ms", "--dsn", database.dsn(), columns=120
    )
    assert shown.code == 0
    assert "\x1b[K[##########--------------------]  33 %  1 poll, " in shown.terminal
    assert shown.terminal.endswith(f"\r\x1b[Kpgwatch-sessions: recorded 3 polls to {file}\r\n")


# --- While the daemon runs ---


def test_the_daemon_records_what_it_judges(database: Database, tmp_path: Path) -> None:
    """A replay of the daemon's recording has the events of its log. The files are complete after SIGTERM."""
    folder = tmp_path / "recordings"
    judged = ("--hold-limit", "1s")
    with (
        idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED),
        daemon("--record-dir", str(folder), "--name", "shop", *judged, dsn=database.dsn()) as watching,
    ):
        until(lambda: watching.events("leak_opened"))
        code = watching.end_by(signal.SIGTERM)
        logged = watching.events("leak_opened")
    assert code == 0
    (file,) = folder.iterdir()
    assert gzip.decompress(file.read_bytes()).endswith(b"\n")
    assert SECRET.encode() not in gzip.decompress(file.read_bytes())
    ended = finished("replay", "--format", "json", str(file), *judged)
    replayed = [json.loads(line) for line in ended.stdout.splitlines()]
    meant = ("event", "server", "kind", "severity", "database", "application", "site", "sessions")
    opened = [event for event in replayed if event["event"] == "leak_opened"]
    assert [[event[key] for key in meant] for event in opened] == [[event[key] for key in meant] for event in logged]


@pytest.mark.promise("A disk that is full, slow or gone stops nothing.")
def test_a_write_error_does_not_stop_polling(database: Database, tmp_path: Path) -> None:
    """The error is logged once, and its end once. Meanwhile the metrics stay fresh."""
    blocked = tmp_path / "blocked"
    blocked.touch()
    with daemon("--record-dir", str(blocked / "recordings"), dsn=database.dsn()) as watching:
        until(lambda: watching.events("recording_failed"))
        polls = watching.scrape().polls()
        watching.scrape_when(lambda scrape: scrape.polls() > polls + 3)
        assert (watching.scrape().value("recording_failures_total") or 0) >= 3
        blocked.unlink()
        until(lambda: watching.events("recording_resumed"))
        until(lambda: list((blocked / "recordings").iterdir()))
        (failed,) = watching.events("recording_failed")
        watching.end_by(signal.SIGTERM)
    assert str(blocked) in failed["error"]
    assert "level" in failed


@pytest.mark.promise("A disk that is full, slow or gone stops nothing.")
def test_a_deleted_directory_is_noticed_and_made_again(database: Database, tmp_path: Path) -> None:
    """The log names the file that is gone, the lost poll is counted, and the next one is in a new file."""
    folder = tmp_path / "recordings"
    with daemon("--record-dir", str(folder), dsn=database.dsn()) as watching:
        until(lambda: folder.exists() and list(folder.iterdir()))
        assert watching.scrape().value("recording_failures_total") == 0
        shutil.rmtree(folder)
        (failed,) = until(lambda: watching.events("recording_failed"))
        until(lambda: watching.events("recording_resumed"))
        watching.scrape_when(lambda scrape: scrape.value("recording_failures_total") == 1)
        watching.end_by(signal.SIGTERM)
    assert f"deleted while it was being written: '{folder}/" in failed["error"]
    (file,) = folder.iterdir()
    assert polls_in(file)


def test_a_deleted_file_ends_the_recording(database: Database, tmp_path: Path) -> None:
    """Nobody could read it any more. The exit code is 2."""
    file = tmp_path / "night.jsonl"
    with recording("--out", str(file), *FAST, env=environment(DSN=database.dsn())) as process:
        until(lambda: file.exists() and polls_in(file))
        file.unlink()
        _, output = process.communicate(timeout=10)
    assert process.returncode == 2
    assert output == f"pgwatch-sessions: error: {file}: deleted while it was being written\n"


@pytest.mark.promise("A disk that is full, slow or gone stops nothing.")
async def test_a_disk_that_hangs_does_not_stop_polling(database: Database) -> None:
    """Polling continues without waiting for the write, and without a second writer. Recording resumes afterwards."""
    free = threading.Event()
    recorded: list[str] = []

    def record(server: str, outcome: Snapshot | Failure, at: float) -> None:
        assert isinstance(outcome, Snapshot), at
        free.wait(timeout=30)
        recorded.append(server)

    with capture_logs() as logs, closing_poller(database, record) as (poller, published):
        await poller.poll()
        await poller.poll()
        assert (len(published), recorded) == (2, [])
        free.set()
        await asyncio.to_thread(until, lambda: recorded)
        await poller.poll()
        await poller.close()
    assert (len(published), len(recorded)) == (3, 2)
    assert [entry["event"] for entry in logs if "recording" in entry["event"]] == [
        "recording_failed",
        "recording_resumed",
    ]


@contextmanager
def closing_poller(
    database: Database, record: Callable[[str, Snapshot | Failure, float], None]
) -> Iterator[tuple[Poller, list[ServerState]]]:
    """Yield a poller and the states that it publishes; its connection is closed at the end."""
    disk = DiskThread()
    published: list[ServerState] = []
    connection = HeldConnection(
        Target(name="shop", dsn=database.dsn()), timeout=5, parse=parse_statement, jitter=lambda _: 0.0
    )
    poller = Poller(
        ServerState(server="shop"),
        connection,
        policy=Policy(),
        publish=published.append,
        log=structlog.get_logger(),
        record=lambda *poll: disk.run(lambda: record(*poll)),
    )
    try:
        yield poller, published
    finally:
        connection.drop()
        disk.end()


async def test_a_programming_error_while_recording_is_raised(database: Database) -> None:
    """Only OSError is the disk's. Any other error ends the daemon."""

    def record(server: str, outcome: Snapshot | Failure, at: float) -> None:
        raise LookupError(server, outcome, at)

    with closing_poller(database, record) as (poller, _), pytest.raises(LookupError):
        await poller.poll()
