import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
import structlog

from pgwatch_sessions.core.events import DiagnosisChanged, Event, LeakOpened
from pgwatch_sessions.core.findings import Diagnosis, Severity, Verdict
from pgwatch_sessions.core.model import SessionState
from pgwatch_sessions.logs import configure_logs, log_line
from pgwatch_sessions.wording.event_lines import event_line, is_said_by_another
from pgwatch_sessions.wording.events import event_fields, event_name
from pgwatch_sessions.wording.lines import Line, Tone
from tests.support.findings import finding
from tests.support.values import NOW, session


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Restore the logging configuration for other tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []  # pytest's handlers, which `configure_logs` would close
    yield
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level
    for name in ("apscheduler", "apscheduler.executors", "asyncio", "uvicorn", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).disabled = False


def json_lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Return the lines that were written, parsed."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(password: str) -> None:
    """Raise while a local variable holds the password."""
    connection = f"postgresql://u:{password}@h/x"
    raise ValueError(f"{len(connection)} characters are too many")


def test_an_event_is_one_line_of_json() -> None:
    """It has an ISO 8601 time in UTC, the level, the event and its fields."""
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    structlog.get_logger().info("server_up", server="db:5432", text="two\nlines")
    (line,) = json_lines(stream)
    at = datetime.fromisoformat(str(line.pop("timestamp")))
    assert at.tzinfo is not None
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert line == {"level": "info", "event": "server_up", "server": "db:5432", "text": "two\nlines"}


OPENED = LeakOpened(finding(session(2, SessionState.IDLE_IN_TRANSACTION, since=NOW - 300), severity=Severity.CRITICAL))
SENTENCE = (
    "orders (shop, app): 1 session idle in transaction at SELECT orders for 5 min, 12 more per minute, "
    "out of connections in 5 min"
)


def log_event(event: Event, *, name_server: bool = False, form: Literal["json", "console"] = "console") -> str:
    """Return what is logged of an event, in one form."""
    stream = io.StringIO()
    configure_logs(form, "info", stream, name_server=name_server)
    log = structlog.get_logger().bind(server="shop-db")
    repeated = is_said_by_another(event)
    log_line(log, event_name(event), event_line(event, at=NOW), event_fields(event), repeated=repeated)
    return stream.getvalue()


def test_the_line_for_people_is_time_severity_and_sentence() -> None:
    """If several servers are watched, it has the name of the server too. Without a terminal it has no colours."""
    at = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(rf"{at}  critical    {re.escape(SENTENCE)}\n", log_event(OPENED))
    assert re.fullmatch(rf"{at}  shop-db  critical    {re.escape(SENTENCE)}\n", log_event(OPENED, name_server=True))


def test_json_has_the_same_sentence_beside_the_fields() -> None:
    """The level follows from the severity. What a person reads first comes first."""
    line = json.loads(log_event(OPENED, form="json"))
    assert list(line)[:6] == ["timestamp", "level", "event", "server", "message", "kind"]
    assert line["message"] == SENTENCE
    assert (line["level"], line["severity"], line["sessions"], line["session_count"]) == ("error", "critical", [2], 1)
    assert line.keys().isdisjoint({"line", "repeated"})


def test_what_another_line_says_is_not_repeated_to_people() -> None:
    """A client that leaks has a finding, which says more. Programs get every event."""
    leaking = DiagnosisChanged(Diagnosis(client=None, verdict=Verdict.LEAKING, reason="2 held"), Verdict.OK)
    blocked = DiagnosisChanged(Diagnosis(client=None, verdict=Verdict.BLOCKED, reason="pid 7"), Verdict.OK)
    assert log_event(leaking) == ""
    assert json.loads(log_event(leaking, form="json"))["message"] == "the server is leaking: 2 held (it was ok)"
    assert log_event(blocked).endswith("diagnosis   the server is blocked: pid 7 (it was ok)\n")


def test_auto_writes_json_if_the_stream_is_no_terminal() -> None:
    """A container's log is read by programs."""
    stream = io.StringIO()
    configure_logs("auto", "info", stream)
    structlog.get_logger().info("started")
    assert json_lines(stream)[0]["event"] == "started"


def test_events_of_libraries_have_the_same_form() -> None:
    """Warnings of Python too. Events of libraries that do not matter to users are left out."""
    stream = io.StringIO()
    configure_logs("json", "info", stream)
    logging.getLogger("asyncio").warning("slow %s", "client")
    logging.getLogger("apscheduler.scheduler").info("Added job")
    logging.getLogger("uvicorn.access").critical("GET /metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("passfile is readable by all", UserWarning, stacklevel=1)
    slow, warned = json_lines(stream)
    assert {"event": "slow client", "level": "warning", "logger": "asyncio"}.items() <= slow.items()
    assert warned["logger"] == "py.warnings"
    assert "passfile" in str(warned["event"])


def test_the_level_applies_to_libraries_too() -> None:
    """Nothing below the level is written. At debug, libraries log everything."""
    stream = io.StringIO()
    configure_logs("json", "error", stream)
    structlog.get_logger().warning("clients_folded")
    logging.getLogger("asyncio").warning("slow callback")
    assert stream.getvalue() == ""
    configure_logs("json", "debug", stream)
    structlog.get_logger().debug("polled")
    logging.getLogger("apscheduler").debug("next wakeup")
    assert [line["event"] for line in json_lines(stream)] == ["polled", "next wakeup"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values_of_variables(form: str) -> None:
    """Local variables may hold DSNs and passwords."""
    stream = io.StringIO()
    configure_logs("json" if form == "json" else "console", "info", stream)
    for log in (structlog.get_logger().exception, logging.getLogger("asyncio").exception):
        try:
            fail("hunter2")
        except ValueError:
            log("job_failed")
    text = stream.getvalue()
    assert text.count("in fail") == text.count("ValueError: 26 characters") == 2
    assert "hunter2" not in text.replace('fail("hunter2")', "").replace('fail(\\"hunter2\\")', "")
    if form == "json":
        assert all(str(line["exception"]).startswith("Traceback") for line in json_lines(stream))


def test_names_cannot_write_to_the_terminal() -> None:
    """A client of the server can put control characters into its names. They are escaped or replaced."""
    stream = io.StringIO()
    configure_logs("console", "info", stream)
    structlog.get_logger().info("leak_opened", user="\x1b[2Jx", database="x\nforged")
    structlog.get_logger().info("\x1b[2J\n")
    log_line(structlog.get_logger(), "leak_opened", Line("notice", Tone.NOTE, "\x1b[2J\n"))
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 3


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_no_color_is_set(no_color: str, coloured: bool) -> None:
    """On a terminal, `auto` is the console form."""
    ours, theirs = pty.openpty()
    code = (
        "import structlog; from pgwatch_sessions.logs import configure_logs\n"
        "configure_logs('auto', 'info'); structlog.get_logger().info('started', listen='127.0.0.1:9488')"
    )
    environ = {**os.environ, "NO_COLOR": no_color, "PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, "-c", code], check=True, stderr=theirs, env=environ, timeout=30)
    os.close(theirs)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "started" in text
    assert not text.startswith("{")
    assert ("\x1b[" in text) is coloured
