from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from pgwatch_sessions.core.events import LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import FindingState, Severity
from pgwatch_sessions.core.model import Client, ConnectionLimit, ServerInfo, Session, SessionState
from tests.support.polled_server import ACTIVE, SPREAD_OUT, PolledServer, held
from tests.support.values import NOW, session


def test_holds_spread_out_are_a_leak_and_holds_born_together_are_not_yet() -> None:
    """A batch is given three limits to end."""
    leaking, batch = PolledServer(), PolledServer()
    leaking.watch(0, 170, *SPREAD_OUT)
    batch.watch(0, 170, *(held(i, i / 10) for i in range(5)))
    assert [finding.severity for finding in leaking.state.findings] == [Severity.WARNING]
    assert [finding.severity for finding in batch.state.findings] == [Severity.NOTICE]


@pytest.mark.parametrize(
    ("seconds_held", "expected"),
    [
        pytest.param([65] * 34, Severity.CRITICAL, id="together"),
        pytest.param([65 - i * 65 / 34 for i in range(34)], Severity.CRITICAL, id="one after the other"),
        pytest.param([65, *[5] * 33], Severity.NOTICE, id="most of them work"),
    ],
)
def test_one_poll_shows_that_a_server_is_full_of_held_sessions(
    seconds_held: Sequence[float], expected: Severity
) -> None:
    """36 of 37 slots are used. Nobody can wait until it is known whether this is a leak."""
    server = PolledServer()
    sessions = [held(i, -seconds) for i, seconds in enumerate(seconds_held)]
    small = ServerInfo(max_connections=40, superuser_reserved_connections=3)
    server.poll(0, *sessions, session(99, since=NOW - 1), server=small)
    assert [finding.severity for finding in server.state.findings] == [expected]
    harm = [finding.harm.fills for finding in server.state.findings]
    assert [fills is not None for fills in harm] == [expected is Severity.CRITICAL]


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        pytest.param([-120, -100, 130], Severity.WARNING, id="apart by more than two limits, two held for five"),
        pytest.param([-100, 60, 130], Severity.NOTICE, id="apart by more than two limits, one held for five: batches"),
        pytest.param([-100, -40, 0], Severity.NOTICE, id="apart by less"),
        pytest.param([-200, -120, -105], Severity.WARNING, id="three held for five limits"),
        pytest.param([-200, -120, -95], Severity.NOTICE, id="two held for five limits, the third for less"),
    ],
)
def test_one_poll_shows_a_leak_whose_holds_began_long_after_each_other(
    starts: Sequence[float], expected: Severity
) -> None:
    """Without history, more is needed than later: holds that end are not seen in one poll."""
    server = PolledServer()
    server.poll(200, *(held(i, start) for i, start in enumerate(starts)))
    assert [finding.severity for finding in server.state.findings] == [expected]


def test_one_poll_shows_that_what_looks_like_a_leak_blocks_others() -> None:
    """Several holds that did not begin together block somebody: critical at once. One is a warning."""
    waiter = session(9, ACTIVE, since=NOW, wait_event_type="Lock", blocked_by=(1,))
    several, single = PolledServer(), PolledServer()
    several.poll(110, *SPREAD_OUT, waiter)
    single.poll(110, held(1, 0), waiter)
    assert [finding.severity for finding in several.state.findings] == [Severity.CRITICAL]
    assert [finding.severity for finding in single.state.findings] == [Severity.WARNING]


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        pytest.param(70, [Severity.WARNING], id="at the hold limit"),
        pytest.param(110, [Severity.WARNING], id="not yet for two limits"),
        pytest.param(140, [Severity.CRITICAL], id="for two limits"),
    ],
)
def test_one_session_that_blocks_others_is_an_outage(until: int, expected: Sequence[Severity]) -> None:
    """It has done so since the first of them began to wait, even if that one gave up and others came."""
    server, alone = PolledServer(), PolledServer()
    for seconds in range(0, until + 1, 10):
        began = NOW + max(0, seconds - 10)
        waiter = session(100 + seconds, ACTIVE, since=began, query_start=began, wait_event_type="Lock", blocked_by=(1,))
        server.poll(seconds, held(1, 0), *([waiter] if seconds % 30 else []))
        alone.poll(seconds, held(1, 0))
    assert [finding.severity for finding in server.state.findings] == expected
    assert [finding.severity for finding in alone.state.findings] == [Severity.NOTICE]
    assert not server.state.findings[0].is_leak


def test_a_lesson_does_not_hide_a_session_that_blocks_others() -> None:
    """A hold of 80 s ended at the site, so that 160 s are normal there. But somebody waits now."""
    server = PolledServer()
    server.watch(0, 90, held(1, 0))
    server.watch(90, 100, session(1, ACTIVE, since=NOW + 85, query_start=NOW + 85, born=NOW - 1000))
    waiter = session(9, ACTIVE, since=NOW + 120, query_start=NOW + 120, wait_event_type="Lock", blocked_by=(2,))
    server.watch(100, 190, held(2, 110), waiter)
    assert [finding.severity for finding in server.state.findings] == [Severity.WARNING]


def test_a_level_of_holds_forecasts_nothing() -> None:
    """Each minute a hold begins and another one ends: as many are held at any time. A leak goes on at its rate."""
    level, leak = PolledServer(), PolledServer()
    for seconds in range(0, 2400, 10):
        lost = [held(i, 60 * i, xact_start=NOW + 60 * i) for i in range(1 + seconds // 60)]
        leak.poll(seconds, *lost)
        level.poll(seconds, *(each for i, each in enumerate(lost) if seconds - 60 * i < 300))
    assert leak.state.findings[0].rate_per_minute == pytest.approx(1)
    assert level.state.findings[0].rate_per_minute < 0.2
    assert level.state.findings[0].recurrence is not None
    assert not level.state.findings[0].is_leak


def test_a_tool_is_reported_only_when_it_blocks_others() -> None:
    """A console may stay idle in a transaction as long as it blocks nobody."""
    console = [replace(each, client=Client("shop", "ann", "psql")) for each in SPREAD_OUT]
    waiter = session(9, ACTIVE, since=NOW, wait_event_type="Lock", blocked_by=(1,))
    quiet, blocking = PolledServer(), PolledServer()
    quiet.watch(0, 110, *console)
    blocking.watch(0, 110, *console, waiter)
    assert quiet.state.findings == ()
    assert [(finding.severity, finding.is_leak) for finding in blocking.state.findings] == [(Severity.WARNING, False)]


def test_a_finding_opens_once_and_closes_once() -> None:
    """A leak whose sessions end and come back within two limits stays one finding."""
    server = PolledServer()
    server.watch(0, 200, *SPREAD_OUT)
    server.watch(200, 290)
    server.watch(290, 500, *(held(10 + i, 220 + 10 * i) for i in range(5)))
    server.watch(500, 700)
    kinds = [type(event) for event in server.events if isinstance(event, LeakOpened | LeakClosed)]
    assert kinds == [LeakOpened, LeakClosed]
    (closed,) = [event for event in server.events if isinstance(event, LeakClosed)]
    assert closed.finding.total == 10


def test_a_finding_without_sessions_is_reported_once_as_recovering() -> None:
    """Then it closes, when it said. Nothing else is reported of it, however critical it was."""
    server = PolledServer()
    server.watch(0, 200, *SPREAD_OUT)
    reported = len(server.events)
    server.watch(200, 400)
    about = [event for event in server.events[reported:] if isinstance(event, LeakOpened | LeakChanged | LeakClosed)]
    assert [type(event) for event in about] == [LeakChanged, LeakClosed]
    recovering = about[0].finding
    assert recovering.state is FindingState.RECOVERING
    assert recovering.closes_at == NOW + 320
    assert recovering.evidence


def test_a_finding_that_begins_to_block_others_is_reported_again() -> None:
    """It says so once, even if the waiters come and go."""
    server = PolledServer()
    server.watch(0, 200, *SPREAD_OUT)
    reported = len(server.events)
    waiter = session(9, ACTIVE, since=NOW + 199, wait_event_type="Lock", blocked_by=(1,))
    for seconds in range(200, 300, 10):
        server.poll(seconds, *SPREAD_OUT, *([waiter] if seconds % 20 else []))
    (changed,) = [event for event in server.events[reported:] if isinstance(event, LeakChanged)]
    assert changed.finding.harm.blocked == 1


def test_sites_with_few_sessions_each_are_joined() -> None:
    """A leak whose statements vary is one finding. A site that grows later gets a finding for its new sessions only."""
    server = PolledServer()
    few = [held(1, 0, "a"), held(2, 10, "b"), held(3, 20, "c"), held(4, 30, "d")]
    server.watch(0, 150, *few)
    more = [held(5, 100, "a"), held(6, 110, "a")]
    server.watch(150, 400, *few, *more)
    assert {finding.key.site for finding in server.state.findings} == {"(various)", "SELECT a"}
    assert sum(len(finding.sessions) for finding in server.state.findings) == 6


def test_a_site_that_alternates_keeps_its_name() -> None:
    """Otherwise each new session would start a new series and a new alert."""
    server = PolledServer()
    for minute in range(15):
        lost = [held(i, 60 * i, "even" if i % 2 else "odd") for i in range(minute)]
        server.watch(60 * minute, 60 * minute + 60, *lost)
    sites = {event.finding.key.site for event in server.events if isinstance(event, LeakChanged)}
    assert len(sites) <= 3
    assert len(server.state.findings) == len({finding.key for finding in server.state.findings})


def test_a_role_that_is_full_of_held_sessions_is_critical_and_stays_so() -> None:
    """The role can open no further session: nobody can connect."""
    small = ServerInfo(max_connections=1000, role_limits=(ConnectionLimit("app", 5),))
    server = PolledServer()
    server.watch(0, 900, *SPREAD_OUT, server=small)
    (finding,) = server.state.findings
    assert finding.severity is Severity.CRITICAL
    assert finding.exhaustion_seconds == 0


def test_critical_does_not_come_and_go_with_waiters_seen_at_every_second_poll() -> None:
    """Waiters for a lock are seen at some polls and not at others."""
    server = PolledServer()
    waiter = session(9, ACTIVE, since=NOW, wait_event_type="Lock", blocked_by=(1,))
    for i, seconds in enumerate(range(0, 900, 10)):
        server.poll(seconds, *SPREAD_OUT, *([waiter] if i % 2 else []))
    severities = [event.finding.severity for event in server.events if isinstance(event, LeakOpened | LeakChanged)]
    changes = sum(a is not b for a, b in pairwise(severities))
    assert changes <= 2
    assert server.state.findings[0].severity is Severity.CRITICAL


def test_a_finding_that_does_not_change_is_not_reported_again() -> None:
    """The same sessions are held for two hours."""
    server = PolledServer()
    server.watch(0, 600, *SPREAD_OUT)
    reported = len(server.events)
    server.watch(600, 7200, *SPREAD_OUT)
    assert len(server.events) == reported


def test_a_limit_of_zero_is_left_out() -> None:
    """CONNECTION LIMIT 0 locks a role out on purpose."""
    server = PolledServer()
    server.poll(0, server=ServerInfo(max_connections=100, role_limits=(ConnectionLimit("off", 0),)))
    assert [limit.name for limit in server.state.exhaustion] == ["db"]


def test_a_session_without_state_change_is_not_judged() -> None:
    """A recording that was made by hand may lack it."""
    server = PolledServer()
    unknown = [replace(each, state_change=None) for each in SPREAD_OUT]
    server.watch(0, 600, *unknown)
    assert server.state.findings == ()


def test_the_servers_clock_may_be_set_back() -> None:
    """A leak is still detected, one limit later."""
    server = PolledServer()
    server.watch(0, 100)
    earlier = [held(i, -3600 + 10 * i) for i in range(5)]
    server.watch(-3600, -3300, *earlier)
    assert [finding.severity for finding in server.state.findings] == [Severity.WARNING]


def test_growth_that_stops_forecasts_nothing_before_its_sessions_are_over_the_limit() -> None:
    """A session is opened every ten seconds. Its opening is seen at once, that it is lost only a minute later."""
    server = PolledServer()
    opened: list[Session] = []
    rates: dict[int, float] = {}
    for seconds in range(0, 380, 10):
        if seconds <= 300:
            opened.append(
                session(
                    seconds, SessionState.IDLE, born=NOW + seconds, since=NOW + seconds, query="SELECT * FROM orders"
                )
            )
        server.poll(seconds, *opened)
        rates[seconds] = server.state.findings[0].rate_per_minute if server.state.findings else 0.0
    assert rates[300] == pytest.approx(6, rel=0.05)
    assert rates[350] == pytest.approx(6, rel=0.05)
    assert rates[360] == 0.0
