"""A daemon with `state_dir` goes on after a restart where it was, and one without begins anew."""

import contextlib
import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.statements import parse_statement
from pgwatch_sessions.demo.child_process import child_process
from pgwatch_sessions.memory.state_file import StateFile
from pgwatch_sessions.poller import Poller
from pgwatch_sessions.postgres.connection import HeldConnection
from pgwatch_sessions.postgres.target import Target
from pgwatch_sessions.recording.lines import Line, read_lines
from tests.support.daemons import Daemon, Scrape, daemon, logged
from tests.support.programs import PROGRAM, environment, finished
from tests.support.servers import Database
from tests.support.situations import idle_in_transaction
from tests.support.waiting import until
from tests.test_reload import leaks, reload, write_config

LEAKED = "SELECT 's3cret' AS email /*route='/orders'*/"
JUDGED = ("--name", "shop", "--hold-limit", "1s")


@contextlib.contextmanager
def killed_at_the_end(log: Path, *arguments: str, dsn: str) -> Iterator[Daemon]:
    """Run a daemon, which ends with SIGKILL."""
    log.touch()
    settings = environment(DSN=dsn, LISTEN="127.0.0.1:0", INTERVAL="100ms")
    with child_process((*PROGRAM, "run", *arguments), env=settings, log=log) as process:
        (started,) = until(lambda: [each for each in logged(log) if each["event"] == "started"], within=20)
        yield Daemon(process=process, log=log, address=started["address"])
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def leak(stack: contextlib.ExitStack, database: Database, count: int) -> list[int]:
    """Open transactions and forget them; return their pids."""
    dsn = database.dsn(application_name="orders-api")
    return [stack.enter_context(idle_in_transaction(dsn, LEAKED)) for _ in range(count)]


def leaked_sessions(scrape: Scrape) -> float:
    """Return the sessions in open findings of the leaking client."""
    return sum(scrape.all("leaked_sessions", application="orders-api"))


def content_of(folder: Path) -> dict[str, Any]:
    """Return what the one state file holds."""
    (file,) = folder.glob("*.gz")
    content: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return content


def kept_sessions(folder: Path) -> int:
    """Return the sessions of all findings in the file of the server `shop`; 0 if there is none yet."""
    file = StateFile(directory=folder, server="shop", statements="redacted")
    content = file.read()
    return sum(len(finding.sessions) for finding in file.decode(content).findings) if content else 0


def test_a_daemon_that_was_killed_during_a_leak_goes_on_with_it(database: Database, tmp_path: Path) -> None:
    """The finding is opened once, its counters go on, and the first poll shows the sessions that are left and new."""
    folder = tmp_path / "state"
    options = ("--state-dir", str(folder), "--record-dir", str(tmp_path / "recordings"), *JUDGED)
    with contextlib.ExitStack() as stack:
        leak(stack, database, 3)
        with contextlib.ExitStack() as soon_gone:
            leak(soon_gone, database, 1)
            with killed_at_the_end(tmp_path / "first.log", *options, dsn=database.dsn()) as first:
                before = first.scrape_when(lambda scrape: leaked_sessions(scrape) == 4)
                (finding,) = leaks(first, "shop")
                until(lambda: kept_sessions(folder) == 4)
                opened = first.events("leak_opened")
        with daemon(*options, dsn=database.dsn(), interval="1h") as second:
            after = second.scrape_when_up()
            assert leaked_sessions(after) == 3
            (kept,) = leaks(second, "shop")
            (restored,) = second.events("state_restored")
            assert second.events("leak_opened") == []
        with daemon(*options, dsn=database.dsn()) as third:
            leak(stack, database, 2)
            last = third.scrape_when(lambda scrape: leaked_sessions(scrape) == 5)
            # The replay knows the last polls before the kill, so its lesson of the session that ended may be longer.
            third.scrape_when(lambda scrape: scrape.polls() > last.polls() + 10)
            assert third.events("leak_opened") == []
    assert len(opened) == 1
    assert restored["findings"] == 1
    assert kept["opened_at"] == finding["opened_at"]
    for scrape, sessions in ((before, 4), (after, 4), (last, 6)):
        assert scrape.value("leaks_opened_total", application="orders-api") == 1
        assert scrape.value("sessions_leaked_total", application="orders-api") == sessions
    assert (folder.stat().st_mode & 0o777, [each.stat().st_mode & 0o777 for each in folder.iterdir()]) == (
        0o700,
        [0o600],
    )

    replayed = replay(tmp_path / "recordings")
    assert [(event["event"], len(event["sessions"])) for event in replayed if event["event"] != "leak_changed"] == [
        ("leak_opened", len(opened[0]["sessions"]))
    ]
    assert len(replayed[-1]["sessions"]) == 5


def replay(folder: Path) -> list[dict[str, Any]]:
    """Return what `replay` says about the findings in all segments of a recording, one after the other."""
    whole = folder / "whole.jsonl"
    with whole.open("wb") as target:
        for segment in sorted(folder.glob("*.gz")):
            with segment.open("rb") as source:
                target.writelines(bytes(line.content) + b"\n" for line in read_lines(source) if isinstance(line, Line))
    said = finished("replay", "--format", "json", str(whole), "--hold-limit", "1s").stdout.splitlines()
    return [event for event in map(json.loads, said) if event["event"].startswith("leak_")]


def test_without_state_dir_a_restart_begins_anew(database: Database) -> None:
    """Nothing is written, and the finding is opened again."""
    with contextlib.ExitStack() as stack:
        leak(stack, database, 2)
        for _ in range(2):
            with daemon(*JUDGED, dsn=database.dsn()) as watching:
                watching.scrape_when(lambda scrape: leaked_sessions(scrape) == 2)
                assert len(watching.events("leak_opened")) == 1
                assert watching.events("state_restored") == []


def test_an_orderly_end_writes_what_was_learned_last(database: Database, tmp_path: Path) -> None:
    """Without statement texts if they are off, and without a word of a literal."""
    folder = tmp_path / "state"
    options = ("--state-dir", str(folder), *JUDGED)
    with idle_in_transaction(database.dsn(application_name="orders-api"), LEAKED.replace("SELECT", "SELECT 1 AS w,")):
        with daemon(*options, "--statements", "off", dsn=database.dsn()) as watching:
            until(lambda: watching.events("leak_opened"))
            until(lambda: list(folder.glob("*.gz")))
            before = content_of(folder)["last_poll_at"]
            watching.scrape_when(lambda scrape: scrape.polls() > 20)
        content = content_of(folder)
        with daemon(*options, dsn=database.dsn()) as watching:
            (ignored,) = watching.events("state_ignored")
            assert ignored["error"] == "was written with another setting of `statements`"
            until(lambda: content_of(folder)["statements"] == "redacted")
    assert content["last_poll_at"] > before
    text = json.dumps(content)
    assert "orders-api" in text
    assert "s3cret" not in text
    assert "email" not in text


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [("shop", b"half a file", "is damaged"), ("billing", None, "is of another server")],
)
def test_a_file_of_no_use_is_logged_once_and_replaced(
    database: Database, tmp_path: Path, name: str, damage: bytes | None, reason: str
) -> None:
    """The daemon begins anew."""
    folder = tmp_path / "state"
    with daemon("--state-dir", str(folder), "--name", "shop", dsn=database.dsn()) as watching:
        watching.scrape_when_up()
    (file,) = folder.iterdir()
    if damage is not None:
        file.write_bytes(damage)
    own = StateFile(directory=folder, server=name, statements="redacted")
    file.rename(own.path)
    with daemon("--state-dir", str(folder), "--name", name, dsn=database.dsn()) as watching:
        watching.scrape_when_up()
        (ignored,) = watching.events("state_ignored")
    assert ignored["error"] == reason
    assert ignored["message"] == f"{own.path} {reason}, so it is not used: findings, counters and habits begin anew"
    assert own.decode(own.read() or b"").server == name


@pytest.mark.promise("A disk that is full, slow or gone stops nothing.")
def test_a_directory_that_cannot_be_written_stops_nothing(database: Database, tmp_path: Path) -> None:
    """The error is logged once, and its end once. Meanwhile polling goes on."""
    blocked = tmp_path / "blocked"
    blocked.touch()
    with daemon("--state-dir", str(blocked / "state"), dsn=database.dsn()) as watching:
        until(lambda: watching.events("state_failed"))
        polls = watching.scrape().polls()
        watching.scrape_when(lambda scrape: scrape.polls() > polls + 3)
        blocked.unlink()
        until(lambda: watching.events("state_resumed"))
        (failed,) = watching.events("state_failed")
        (ignored,) = watching.events("state_ignored")
    assert str(blocked) in failed["error"]
    assert "cannot be read" in ignored["error"]


def test_a_reload_may_change_the_directory_and_the_texts(database: Database, tmp_path: Path) -> None:
    """The state moves to the other directory. A file that would become old, or have texts, is removed."""
    first, second = tmp_path / "first", tmp_path / "second"
    server = ("shop", database.dsn())
    config = write_config(tmp_path / "config.yaml", server, state_dir=str(first))
    with daemon("--config", str(config)) as watching:
        until(lambda: list(first.glob("*.gz")))
        write_config(config, server, state_dir=str(second))
        assert reload(watching)["settings"] == ["state_dir"]
        until(lambda: list(second.glob("*.gz")))
        assert list(first.iterdir()) == []
        write_config(config, server, state_dir=str(second), statements="off")
        reload(watching)
        polls = watching.scrape().polls()
        watching.scrape_when(lambda scrape: scrape.polls() > polls + 3)
    assert list(second.iterdir()) == [], "until the next start, texts from before may be in memory"


async def test_an_error_in_the_program_removes_the_file(database: Database, tmp_path: Path) -> None:
    """With the file, the daemon would fail again after every restart."""
    file = StateFile(directory=tmp_path, server="shop", statements="redacted")
    target = Target(name="shop", dsn=database.dsn())
    connection = HeldConnection(target, timeout=5, parse=parse_statement, jitter=lambda _: 0.0)
    published: list[ServerState] = []

    def publish(state: ServerState) -> None:
        published.append(state)
        if len(published) > 1:
            raise RuntimeError

    def ignore(_: Event) -> None:
        pass

    poller = Poller(
        ServerState(server="shop"),
        connection,
        policy=Policy(),
        publish=publish,
        log=structlog.get_logger(),
        state_file=file,
        on_event=ignore,
    )
    with capture_logs():
        await poller.poll()
        assert file.read() is not None
        with pytest.raises(RuntimeError):
            await poller.poll()
        assert file.read() is None
        await poller.close()
    assert file.read() is None
