"""Each row is one rule of diagnosis: what a client's sessions do, as plain values, and the verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest

from pgwatch_sessions.core.findings import Diagnosis, Finding, Recurrence, Severity, Verdict
from pgwatch_sessions.core.history import ClientHabits, History, Kill, Track
from pgwatch_sessions.core.judging.diagnosis import (
    ClientEvidence,
    DiagnosisMemory,
    diagnose,
    diagnose_client,
    diagnose_failure,
    diagnose_server,
)
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.judging.saturation import Activity
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import Client, LimitScope, Session, SessionState
from tests.support import contexts
from tests.support.findings import finding
from tests.support.values import NOW, ORDERS, session

ACTIVE, IDLE, HELD = SessionState.ACTIVE, SessionState.IDLE, SessionState.IDLE_IN_TRANSACTION
PAY = "UPDATE orders SET paid = true"
POLICY = Policy(hold_limit=60.0)
LEAK = finding(
    *(session(pid, SessionState.IDLE_IN_TRANSACTION) for pid in range(4)),
    rate_per_minute=0.0,
    exhaustion_seconds=math.inf,
)


def history_of(sessions: Sequence[Session], at: float = NOW) -> History:
    """Return a history that has just seen these sessions."""
    tracks = {each.id: Track(each, birth_seen=True, moves=1) for each in sessions}
    return History(first_poll_at=NOW - 1000, last_poll_at=at, tracks=tracks)


def context_of(sessions: Sequence[Session], *, now: float = NOW) -> PollContext:
    """Return the context of a poll that saw these sessions, and the same ones before."""
    return contexts.context_of(history_of(sessions, now), POLICY)


def active(pid: int, age: float, **fields: object) -> Session:
    """Return a session whose statement has run for so many seconds."""
    return session(pid, ACTIVE, since=NOW - age, **fields)  # type: ignore[arg-type]  # fields of `session`


def waiting(pid: int, age: float, *, behind: int) -> Session:
    """Return a session that waits for a lock of another one."""
    return active(pid, age, wait_event_type="Lock", blocked_by=(behind,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is seen of a client, and the verdict on it."""

    sessions: Sequence[Session] = ()
    activity: Sequence[Activity] = ()
    leaks: Sequence[Finding] = ()
    verdict: Verdict
    #: A part of the reason.
    reason: str = ""


ROWS: Mapping[str, Row] = {
    "idle sessions": Row(sessions=[session(pid, IDLE) for pid in range(5)], verdict=Verdict.OK),
    "a hidden session: whatever else is seen may be half of the truth": Row(
        sessions=[session(1, None)], leaks=[LEAK],
        verdict=Verdict.UNKNOWN, reason="hidden from the monitoring role: 1 of 1 sessions",
    ),
    "an open finding": Row(leaks=[LEAK], verdict=Verdict.LEAKING, reason="4 held at SELECT orders"),
    "half of the statements wait for a lock": Row(
        sessions=[waiting(1, 20, behind=9), active(2, 1)],
        verdict=Verdict.BLOCKED, reason="1 of 2 active sessions wait for locks held by pid 9, the longest for 20 s",
    ),
    "less than half wait": Row(sessions=[waiting(1, 20, behind=9), active(2, 1), active(3, 1)], verdict=Verdict.OK),
    "the lock is waited for briefly": Row(sessions=[waiting(1, 9, behind=9)], verdict=Verdict.OK),
    "one of many waits for a session that is held": Row(
        sessions=[waiting(1, 2, behind=9), active(2, 1), active(3, 1), session(9, HELD, since=NOW - 61, query=PAY)],
        verdict=Verdict.BLOCKED,
        reason="1 of 3 active sessions wait for locks held by orders at UPDATE orders (pid 9), the longest for 2 s",
    ),
    "it is held for less than the limit": Row(
        sessions=[waiting(1, 2, behind=9), active(2, 1), active(3, 1), session(9, HELD, since=NOW - 59, query=PAY)],
        verdict=Verdict.OK,
    ),
    "a leak that is also blocked is blocked": Row(
        sessions=[waiting(1, 20, behind=9)], leaks=[LEAK], verdict=Verdict.BLOCKED,
    ),
    "long holds that come back, in a pause": Row(
        leaks=[replace(LEAK, sessions=(), recurrence=Recurrence(12, 3600, 120, 300))],
        verdict=Verdict.LEAKING, reason="long holds come back at SELECT orders",
    ),
    "half of the sessions run one query beyond the limit": Row(
        sessions=[active(1, 61), active(2, 70), session(3, IDLE), session(4, IDLE)],
        verdict=Verdict.SLOW, reason="2 of 4 sessions have run one query for over 60 s",
    ),
    "vacuums and index builds take their time": Row(
        sessions=[
            active(1, 600, query="VACUUM (ANALYZE) orders"),
            active(2, 600, query="create unique index i on orders (id)"),
        ],
        verdict=Verdict.OK,
    ),
    "a single slow query": Row(sessions=[active(1, 600)], verdict=Verdict.OK),
    "slow queries of a few": Row(
        sessions=[active(1, 61), active(2, 70), *(session(pid, IDLE) for pid in range(3, 8))], verdict=Verdict.OK,
    ),
    "all sessions busy and turning over": Row(
        activity=[Activity(NOW - 10 * i, 10, 10, 10, 6) for i in reversed(range(5))],
        verdict=Verdict.SATURATED, reason="all of up to 10 sessions are busy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_verdict_on_a_client(row: Row) -> None:
    """The first rule that finds a reason decides."""
    context = context_of(row.sessions)
    evidence = ClientEvidence(
        tracks=tuple(context.history.tracks.values()), activity=row.activity, leaks=row.leaks, context=context
    )
    diagnosis = diagnose_client(ORDERS, evidence)
    assert diagnosis.verdict is row.verdict, diagnosis.reason
    assert row.reason in diagnosis.reason


def verdict(on: Verdict, application: str = "orders", reason: str = "why") -> Diagnosis:
    """Return the verdict on a client."""
    return Diagnosis(client=Client("shop", "app", application), verdict=on, reason=reason)


FULL = (SlotUsage(LimitScope.SERVER, "db", 100, 90),)
ROOMY = (SlotUsage(LimitScope.SERVER, "db", 100, 89), SlotUsage(LimitScope.ROLE, "app", 5, 5))


class ServerRow(NamedTuple):
    """The verdicts on the clients, the use of the slots, what is hidden, and the verdict on the server."""

    clients: Sequence[Diagnosis]
    slots: Sequence[SlotUsage]
    verdict: Verdict
    reason: str
    hidden: str = ""


SERVER_ROWS: Mapping[str, ServerRow] = {
    "no client": ServerRow([], ROOMY, Verdict.OK, ""),
    "all are well": ServerRow([verdict(Verdict.OK)], ROOMY, Verdict.OK, ""),
    "blocked is worst, whatever leaks": ServerRow(
        [verdict(Verdict.BLOCKED), verdict(Verdict.LEAKING, "stock")], ROOMY, Verdict.BLOCKED, "orders: why",
    ),
    "blocked is worse than slow": ServerRow(
        [verdict(Verdict.SLOW), verdict(Verdict.BLOCKED)], ROOMY, Verdict.BLOCKED, "orders: why",
    ),
    "nine tenths of the slots are in use without a leak": ServerRow(
        [verdict(Verdict.SLOW)], FULL, Verdict.SATURATED, "90 of 100 slots are in use",
    ),
    "a leak explains a full server": ServerRow([verdict(Verdict.LEAKING)], FULL, Verdict.LEAKING, "orders: why"),
    "one session is hidden": ServerRow(
        [verdict(Verdict.UNKNOWN), verdict(Verdict.OK, "web")], ROOMY, Verdict.UNKNOWN, "1 of 9", hidden="1 of 9",
    ),
    "a visible leak is worse than hidden sessions": ServerRow(
        [verdict(Verdict.UNKNOWN), verdict(Verdict.LEAKING)], ROOMY, Verdict.LEAKING, "orders: why", hidden="1 of 9",
    ),
    "what nobody can make visible": ServerRow([verdict(Verdict.UNKNOWN)], ROOMY, Verdict.OK, ""),
}  # fmt: skip


@pytest.mark.parametrize("row", SERVER_ROWS.values(), ids=SERVER_ROWS)
def test_the_verdict_on_the_server(row: ServerRow) -> None:
    """The worst verdict on a client counts, and a server without free slots is too small."""
    diagnosis = diagnose_server(row.clients, row.slots, hidden=row.hidden)
    assert (diagnosis.verdict, diagnosis.reason) == (row.verdict, row.reason)


def test_a_verdict_takes_effect_when_it_is_steady() -> None:
    """BLOCKED takes effect after 6 s, a tenth of the hold limit; a leak at once, and its end as well."""
    memory, blocked = DiagnosisMemory(), [waiting(1, 20, behind=9)]

    def poll(seconds: float, sessions: Sequence[Session], findings: Sequence[Finding] = ()) -> Verdict:
        nonlocal memory
        context = context_of(sessions, now=NOW + seconds)
        memory, _ = diagnose(memory, context, clients=[ORDERS], findings=findings)
        return memory.diagnoses[ORDERS].verdict

    idle = [session(1, IDLE)]
    assert poll(0, idle) is Verdict.OK
    assert poll(5, blocked) is Verdict.OK
    assert poll(10.9, blocked) is Verdict.OK
    assert poll(11, blocked) is Verdict.BLOCKED
    assert poll(12, idle, [LEAK]) is Verdict.LEAKING
    assert poll(13, idle) is Verdict.OK


def test_a_notice_is_no_verdict() -> None:
    """A client leaks from WARNING on, and while sessions are held."""
    notice = [replace(LEAK, severity=Severity.NOTICE)]
    gone = [replace(LEAK, sessions=())]
    for findings, expected in ((notice, Verdict.OK), (gone, Verdict.OK), ([LEAK], Verdict.LEAKING)):
        memory, _ = diagnose(DiagnosisMemory(), context_of([]), clients=[ORDERS], findings=findings)
        assert memory.diagnoses[ORDERS].verdict is expected


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        pytest.param([200, 100, 30], Verdict.LEAKING, id="the latest half a minute ago"),
        pytest.param([300, 200, 100], Verdict.OK, id="the latest longer ago than the limit"),
        pytest.param([100, 30], Verdict.OK, id="two only"),
    ],
)
def test_a_leak_goes_on_while_the_server_terminates_its_sessions(ago: Sequence[float], expected: Verdict) -> None:
    """At some polls none of them is there. The next one comes."""
    kills = {LEAK.key.site: tuple(Kill(NOW - each, 30.0) for each in ago)}
    history = replace(history_of([]), habits={ORDERS: ClientHabits(seen_at=NOW, kills=kills)})
    context = contexts.context_of(history, POLICY)
    memory, _ = diagnose(DiagnosisMemory(), context, clients=[ORDERS], findings=[replace(LEAK, sessions=())])
    assert memory.diagnoses[ORDERS].verdict is expected


def test_changes_are_reported_once() -> None:
    """Nothing is said of a new client that is well. A client that leaves is reported if something was wrong with it."""
    memory, events = diagnose(DiagnosisMemory(), context_of([]), clients=[ORDERS], findings=[])
    assert events == ()
    memory, events = diagnose(memory, context_of([]), clients=[ORDERS], findings=[LEAK])
    assert [(event.diagnosis.client, event.diagnosis.verdict, event.before) for event in events] == [
        (ORDERS, Verdict.LEAKING, Verdict.OK),
        (None, Verdict.LEAKING, Verdict.OK),
    ]
    memory, events = diagnose(memory, context_of([]), clients=[ORDERS], findings=[LEAK])
    assert events == ()
    _, events = diagnose(memory, context_of([]), clients=[], findings=[])
    assert {(event.diagnosis.client, event.diagnosis.verdict) for event in events} == {
        (ORDERS, Verdict.OK),
        (None, Verdict.OK),
    }


def test_after_a_failed_poll_nothing_is_known() -> None:
    """The verdicts on clients are withdrawn; the server is UNKNOWN, reported once."""
    memory, _ = diagnose(DiagnosisMemory(), context_of([]), clients=[ORDERS], findings=[LEAK])
    memory, events = diagnose_failure(memory, "timeout")
    assert [(event.diagnosis.verdict, event.before) for event in events] == [(Verdict.UNKNOWN, Verdict.LEAKING)]
    assert set(memory.diagnoses) == {None}
    assert diagnose_failure(memory, "timeout")[1] == ()
