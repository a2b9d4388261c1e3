"""`pgwatch-sessions check --follow` as a process on a real server: a line for each event, at once."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.daemons import own_sessions
from tests.support.programs import PROGRAM, environment, finished
from tests.support.servers import Database
from tests.support.situations import idle_in_transaction
from tests.support.waiting import until

QUICK = ("--hold-limit", "1s", "--interval", "200ms")


@contextmanager
def following(database: Database, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Follow a database until the block ends; its output is a pipe."""
    command = (*PROGRAM, "check", "--follow", "--dsn", database.dsn(), "--database", database.name, *QUICK, *arguments)
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str], *words: str) -> str:
    """Return the next line with these words. The program writes nothing after its last event, so this waits for it."""
    assert process.stdout is not None
    return next(line for line in process.stdout if all(word in line for word in words))


def test_each_event_is_a_line_at_once_and_ctrl_c_ends_it(database: Database) -> None:
    """The first line says what is watched. A finding opens and recovers; the exit code is that of the end."""
    with following(database) as process:
        assert "watching 127.0.0.1:" in next_line(process)
        with idle_in_transaction(database.dsn(application_name="orders-api")):
            opened = next_line(process, "notice")
            assert f"orders-api ({database.name}, postgres): 1 session idle in transaction at SELECT" in opened
        next_line(process, "recovering", "orders-api")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    until(lambda: own_sessions(database.dsn()) == 0)


def test_json_is_one_object_for_each_event(database: Database) -> None:
    """With the fields of the log, and the sentence."""
    with (
        idle_in_transaction(database.dsn(application_name="orders-api")) as pid,
        following(database, "--format", "json") as process,
    ):
        started = json.loads(next_line(process))
        assert (started["event"], started["interval_seconds"]) == ("started", 0.2)
        event = json.loads(next_line(process, "leak_opened"))
        assert (event["application"], event["sessions"]) == ("orders-api", [pid])
        assert event["message"].startswith(f"orders-api ({database.name}, postgres): 1 session idle in transaction")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 1


def test_other_clients_have_no_line(database: Database) -> None:
    """--application selects clients as without --follow; --for ends it."""
    with idle_in_transaction(database.dsn(application_name="orders-api")):
        ended = finished(
            *("check", "--follow", "--dsn", database.dsn(), "--database", database.name, *QUICK, "--for", "1500ms"),
            *("--application", "billing*"),
        )
    assert ended.returncode == 0
    assert "orders-api" not in ended.stdout
    assert ended.stdout.count("\n") >= 2


def test_a_server_that_cannot_be_reached_is_said_once() -> None:
    """The exit code is 3, and polls go on."""
    ended = finished("check", "--follow", "--dsn", "postgresql://nobody@127.0.0.1:1/x", "--polls", "3", *QUICK)
    assert ended.returncode == 3
    assert len([line for line in ended.stdout.splitlines() if "127.0.0.1:1  down " in line]) == 1
