from dataclasses import replace
from itertools import pairwise

from pgwatch_sessions.core.events import Event, LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import Severity
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, ConnectionLimit, ServerInfo, Session, SessionState, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from tests.support.values import NOW, session, snapshot

HELD, ACTIVE = SessionState.IDLE_IN_TRANSACTION, SessionState.ACTIVE
BIG = ServerInfo(max_connections=1000)


def held(pid: int, since: float, site: str = "orders", **fields: object) -> Session:
    """Return a session held since so many seconds after NOW."""
    fields = {"born": NOW - 1000, "query": f"SELECT * FROM {site}"} | fields
    return session(pid, HELD, since=NOW + since, **fields)  # type: ignore[arg-type]  # fields of `session`


class Course:
    """A server watched by a test, poll by poll."""

    def __init__(self) -> None:
        self.state = ServerState(server="db")
        self.events: list[Event] = []

    def poll(self, seconds: float, *sessions: Session, server: ServerInfo = BIG) -> list[Event]:
        """Look so many seconds after NOW; return what changed."""
        poll: Snapshot = snapshot(*sessions, at=NOW + seconds, server=server)
        self.state, events = advance(self.state, poll, policy=Policy(), at=NOW + seconds, duration=0.01)
        self.events += events
        return list(events)

    def watch(self, begin: int, end: int, *sessions: Session, server: ServerInfo = BIG) -> None:
        """Poll every ten seconds at the same sessions."""
        for seconds in range(begin, end, 10):
            self.poll(seconds, *sessions, server=server)


SPREAD_OUT = [held(i, 10 * i) for i in range(5)]


def test_holds_spread_out_are_a_leak_and_holds_born_together_are_not_yet() -> None:
    """A batch may still end, three limits long."""
    leaking, batch = Course(), Course()
    leaking.watch(0, 170, *SPREAD_OUT)
    batch.watch(0, 170, *(held(i, i / 10) for i in range(5)))
    assert [finding.severity for finding in leaking.state.findings] == [Severity.WARNING]
    assert [finding.severity for finding in batch.state.findings] == [Severity.NOTICE]


def test_one_session_is_a_notice_unless_it_does_harm_for_long() -> None:
    """Who waits for it makes it a warning."""
    waiter = session(9, ACTIVE, since=NOW, wait_event_type="Lock", blocked_by=(1,))
    alone, blocking = Course(), Course()
    alone.watch(0, 600, held(1, 0))
    blocking.watch(0, 600, held(1, 0), waiter)
    assert [finding.severity for finding in alone.state.findings] == [Severity.NOTICE]
    assert [(finding.severity, finding.harm.blocked) for finding in blocking.state.findings] == [(Severity.WARNING, 1)]


def test_a_tool_is_judged_by_its_harm_only() -> None:
    """A console may sit in its transaction; it may not block others."""
    console = [replace(each, client=Client("shop", "ann", "psql")) for each in SPREAD_OUT]
    waiter = session(9, ACTIVE, since=NOW, wait_event_type="Lock", blocked_by=(1,))
    quiet, blocking = Course(), Course()
    quiet.watch(0, 600, *console)
    blocking.watch(0, 600, *console, waiter)
    assert quiet.state.findings == ()
    assert [(finding.severity, finding.is_leak) for finding in blocking.state.findings] == [(Severity.WARNING, False)]


def test_a_finding_opens_once_and_closes_once() -> None:
    """A leak that is drained and goes on within two limits is the same one."""
    course = Course()
    course.watch(0, 200, *SPREAD_OUT)
    course.watch(200, 290)
    course.watch(290, 500, *(held(10 + i, 220 + 10 * i) for i in range(5)))
    course.watch(500, 700)
    kinds = [type(event) for event in course.events if isinstance(event, LeakOpened | LeakClosed)]
    assert kinds == [LeakOpened, LeakClosed]
    (closed,) = [event for event in course.events if isinstance(event, LeakClosed)]
    assert closed.finding.total == 10


def test_sites_that_are_each_too_few_are_put_together() -> None:
    """A leak whose statements vary is one finding; a site that becomes a case of its own takes new sessions only."""
    course = Course()
    few = [held(1, 0, "a"), held(2, 10, "b"), held(3, 20, "c"), held(4, 30, "d")]
    course.watch(0, 150, *few)
    more = [held(5, 100, "a"), held(6, 110, "a")]
    course.watch(150, 400, *few, *more)
    assert {finding.key.site for finding in course.state.findings} == {"(various)", "SELECT a"}
    assert sum(len(finding.sessions) for finding in course.state.findings) == 6


def test_a_site_that_alternates_keeps_its_name() -> None:
    """Else each new session would be a new series and a new alert."""
    course = Course()
    for minute in range(15):
        lost = [held(i, 60 * i, "even" if i % 2 else "odd") for i in range(minute)]
        course.watch(60 * minute, 60 * minute + 60, *lost)
    sites = {event.finding.key.site for event in course.events if isinstance(event, LeakChanged)}
    assert len(sites) <= 3
    assert len(course.state.findings) == len({finding.key for finding in course.state.findings})


def test_a_role_that_is_full_of_held_sessions_is_critical_and_stays_so() -> None:
    """No more can leak then, and nobody can connect."""
    small = ServerInfo(max_connections=1000, role_limits=(ConnectionLimit("app", 5),))
    course = Course()
    course.watch(0, 900, *SPREAD_OUT, server=small)
    (finding,) = course.state.findings
    assert finding.severity is Severity.CRITICAL
    assert finding.exhaustion_seconds == 0


def test_critical_does_not_come_and_go_with_waiters_seen_at_every_second_poll() -> None:
    """A lock's queue is sampled."""
    course = Course()
    waiter = session(9, ACTIVE, since=NOW, wait_event_type="Lock", blocked_by=(1,))
    for i, seconds in enumerate(range(0, 900, 10)):
        course.poll(seconds, *SPREAD_OUT, *([waiter] if i % 2 else []))
    severities = [event.finding.severity for event in course.events if isinstance(event, LeakOpened | LeakChanged)]
    changes = sum(a is not b for a, b in pairwise(severities))
    assert changes <= 2
    assert course.state.findings[0].severity is Severity.CRITICAL


def test_a_steady_finding_says_nothing_new() -> None:
    """Hours of the same sessions are no news."""
    course = Course()
    course.watch(0, 600, *SPREAD_OUT)
    told = len(course.events)
    course.watch(600, 7200, *SPREAD_OUT)
    assert len(course.events) == told


def test_a_limit_of_nothing_is_not_used_up() -> None:
    """A role with CONNECTION LIMIT 0 is shut out on purpose."""
    course = Course()
    course.poll(0, server=ServerInfo(max_connections=100, role_limits=(ConnectionLimit("off", 0),)))
    assert [limit.name for limit in course.state.exhaustion] == ["db"]


def test_a_session_without_state_change_is_not_judged() -> None:
    """A recording made by hand may not say since when."""
    course = Course()
    unknown = [replace(each, state_change=None) for each in SPREAD_OUT]
    course.watch(0, 600, *unknown)
    assert course.state.findings == ()


def test_the_servers_clock_may_step_back() -> None:
    """Findings are found all the same, a limit later."""
    course = Course()
    course.watch(0, 100)
    earlier = [held(i, -3600 + 10 * i) for i in range(5)]
    course.watch(-3600, -3300, *earlier)
    assert [finding.severity for finding in course.state.findings] == [Severity.WARNING]
