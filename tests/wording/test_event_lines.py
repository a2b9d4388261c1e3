"""The line about each event, as the log, a terminal, `replay` and the demo print it."""

import pytest

from pgwatch_sessions.core.events import (
    ClientsFolded,
    DiagnosisChanged,
    Event,
    LeakChanged,
    LeakClosed,
    LeakOpened,
    PrivilegeMissing,
    ServerDown,
    ServerUp,
)
from pgwatch_sessions.core.findings import Diagnosis, FilledLimit, Harm, Severity, Verdict
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Failure, FailureReason, LimitScope
from pgwatch_sessions.wording.event_lines import event_line, event_text, is_said_by_another, started_line
from pgwatch_sessions.wording.events import EVENT_NAMES, MAX_PIDS, event_fields
from pgwatch_sessions.wording.lines import Tone
from tests.support.findings import finding
from tests.support.values import NOW, ORDERS, session

SLOTS = SlotUsage(LimitScope.SERVER, "db", 37, 36)
HELD = session(1, since=NOW - 300)
CRITICAL = finding(
    HELD, HELD, severity=Severity.CRITICAL, exhaustion_seconds=0.0,
    harm=Harm(slots=2, fills=FilledLimit(SLOTS, 34)),
)  # fmt: skip
RECOVERING = finding(severity=Severity.CRITICAL, total=1, harm=Harm(slots=0), closes_at=NOW + 120)
BLOCKED = Diagnosis(client=ORDERS, verdict=Verdict.BLOCKED, reason="waiting for locks held by pid 7")

LINES: list[tuple[Event, str, Tone, str]] = [
    (
        LeakOpened(CRITICAL), "critical", Tone.BAD,
        ("orders (shop, app): 2 sessions idle in transaction at SELECT orders, the longest for 5 min, "
        "12 more per minute, out of connections now, 36 of 37 connections of the server in use"),
    ),
    (
        LeakChanged(RECOVERING, CRITICAL), "recovering", Tone.NOTE,
        ("orders (shop, app): the session at SELECT orders has ended or is used again; "
        "closes in 2 min unless it leaks again"),
    ),
    (
        LeakClosed(RECOVERING), "closed", Tone.GOOD,
        "orders (shop, app): the session at SELECT orders has ended or is used again, after 2 min",
    ),
    (
        LeakClosed(CRITICAL), "closed", Tone.GOOD,
        "orders (shop, app): 2 sessions now belong to another finding of this client",
    ),
    (
        DiagnosisChanged(BLOCKED, Verdict.OK), "diagnosis", Tone.WARN,
        "orders (shop, app) is blocked: waiting for locks held by pid 7 (it was ok)",
    ),
    (
        DiagnosisChanged(Diagnosis(client=None, verdict=Verdict.OK), Verdict.SATURATED), "diagnosis", Tone.GOOD,
        "the server is ok (it was saturated)",
    ),
    (ServerUp(SLOTS), "up", Tone.GOOD, "the server can be polled: 36 of 37 connections in use"),
    (ServerUp(), "up", Tone.GOOD, "the server can be polled"),
    (
        ServerDown(Failure(reason=FailureReason.NETWORK, detail="refused")), "down", Tone.BAD,
        "the server cannot be polled: it cannot be reached (network: refused); leaks cannot be seen until it can",
    ),
    (
        PrivilegeMissing("watch", 12, 14), "hidden", Tone.WARN,
        ("12 of 14 sessions are hidden from the monitoring role: leaks among them cannot be seen. "
        'As a superuser, run: GRANT pg_monitor TO "watch";'),
    ),
    (
        ClientsFolded(3), "folded", Tone.WARN,
        ("3 clients are counted together as `other`: raise max_clients, or give each application one name that does "
        "not change"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "label", "tone", "text"), LINES, ids=[f"{each[1]}-{i}" for i, each in enumerate(LINES)]
)
def test_each_event_is_one_sentence(event: Event, label: str, tone: Tone, text: str) -> None:
    """It says who, how many, where, how long, how fast, until when, and at what cost to others."""
    assert event_line(event, at=NOW) == (label, tone, text)
    assert event_text(event, at=NOW) == text


def test_every_event_has_a_line() -> None:
    """A new one needs a line too."""
    assert {type(each[0]) for each in LINES} == set(EVENT_NAMES)


@pytest.mark.parametrize(
    ("before", "verdict", "repeated"),
    [
        (Verdict.OK, Verdict.LEAKING, True),
        (Verdict.LEAKING, Verdict.OK, True),
        (None, Verdict.UNKNOWN, True),
        (Verdict.LEAKING, Verdict.BLOCKED, False),
        (Verdict.SATURATED, Verdict.OK, False),
    ],
)
def test_a_verdict_that_follows_from_another_event_is_not_said_twice(
    before: Verdict | None, verdict: Verdict, repeated: bool
) -> None:
    """A finding tells of a leak; a failed poll and hidden sessions have lines of their own."""
    assert is_said_by_another(DiagnosisChanged(Diagnosis(client=None, verdict=verdict), before)) is repeated


def test_an_event_has_few_pids_and_counts_the_rest() -> None:
    """The sessions held longest come first. The state of a closed finding is closed."""
    sessions = [session(pid, since=NOW - 1000 + pid) for pid in range(1, 35)]
    fields = event_fields(LeakClosed(finding(*sessions)))
    assert fields["sessions"] == list(range(1, MAX_PIDS + 1))
    assert (fields["session_count"], fields["state"]) == (34, "closed")


def test_the_daemon_says_what_it_polls_and_where_its_page_is() -> None:
    """A long list of servers is counted."""
    few = started_line(version="1.2", servers=["a", "b"], interval=0.5, page="http://[::]:9488", metrics="http://x")
    assert few.text == "pgwatch-sessions 1.2 polls a, b every 0.5 s; page: http://[::]:9488/, metrics: http://x/metrics"
    many = started_line(version="1.2", servers=list("abcdef"), interval=10.0, page="http://h", metrics=None)
    assert many.text == "pgwatch-sessions 1.2 polls 6 servers every 10 s; page: http://h/"
