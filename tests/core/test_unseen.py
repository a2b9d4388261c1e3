"""Sessions that the monitoring role may not see any more, because pg_monitor was revoked: they are not gone."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from pgwatch_sessions.core.events import LeakChanged, LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import FindingState, LeakKind, Severity
from pgwatch_sessions.core.model import ServerInfo, Session, SessionId, SessionState
from pgwatch_sessions.core.statements import UNKNOWN_STATEMENT
from pgwatch_sessions.memory.saved_state import decode_state, encode_state
from pgwatch_sessions.wording.advice import advice_of
from pgwatch_sessions.wording.sentences import finding_sentence
from tests.support.polled_server import BIG, SPREAD_OUT, PolledServer, held
from tests.support.values import NOW, session


def hidden(each: Session) -> Session:
    """Return a session as a row of the server without pg_monitor: pid, database, user, application and xid remain."""
    return replace(
        each,
        id=SessionId(each.id.pid, None),
        client_addr=None,
        client_port=None,
        state=None,
        state_change=None,
        xact_start=None,
        query_start=None,
        wait_event_type=None,
        wait_event=None,
        blocked_by=(),
        statement=UNKNOWN_STATEMENT,
    )


def all_hidden(sessions: Iterable[Session]) -> list[Session]:
    """Return all of these sessions as the server shows them without pg_monitor."""
    return [hidden(each) for each in sessions]


def leaking() -> PolledServer:
    """Return a server with a leak of five sessions, last polled 160 s after NOW."""
    server = PolledServer()
    server.watch(0, 170, *SPREAD_OUT)
    assert [finding.is_leak for finding in server.state.findings] == [True]
    return server


def counted(server: PolledServer) -> list[int]:
    """Return how many findings were opened and closed, and how many sessions joined them."""
    counters = server.state.leak_counters
    return [sum(each.values()) for each in (counters.opened, counters.closed, counters.sessions)]


def test_a_revoked_privilege_closes_and_opens_nothing() -> None:
    """Ten minutes without pg_monitor, five hold limits long: the finding is unseen, then open again, and one."""
    server = leaking()
    before = server.state.findings[0]
    server.watch(170, 770, *all_hidden(SPREAD_OUT))
    (unseen,) = server.state.findings
    assert unseen.state is FindingState.UNSEEN
    assert unseen.unseen_since == NOW + 160
    assert unseen.sessions == before.sessions
    assert (unseen.id, unseen.site, unseen.severity, unseen.total) == (before.id, before.site, before.severity, 5)
    assert counted(server) == [1, 0, 5]
    server.watch(770, 900, *SPREAD_OUT)
    (again,) = server.state.findings
    assert again.state is FindingState.OPEN
    assert again.id == before.id
    assert counted(server) == [1, 0, 5]


def test_each_change_of_sight_is_one_event() -> None:
    """It is said once that a finding cannot be seen, and once that it can be seen again."""
    server = leaking()
    told = len(server.events)
    server.watch(170, 400, *all_hidden(SPREAD_OUT))
    server.watch(400, 500, *SPREAD_OUT)
    changes = [event for event in server.events[told:] if isinstance(event, LeakChanged | LeakOpened | LeakClosed)]
    assert [(type(each), each.finding.state) for each in changes] == [
        (LeakChanged, FindingState.UNSEEN),
        (LeakChanged, FindingState.OPEN),
    ]


def test_unseen_sessions_that_are_gone_count_as_gone() -> None:
    """Two of five pids are gone while nothing can be seen: three are left, and after the grant too."""
    server = leaking()
    server.watch(170, 300, *all_hidden(SPREAD_OUT))
    server.watch(300, 500, *all_hidden(SPREAD_OUT[:3]))
    (unseen,) = server.state.findings
    assert [each.id.pid for each in unseen.sessions] == [0, 1, 2]
    assert unseen.harm.slots == 3
    server.watch(500, 600, *SPREAD_OUT[:3])
    assert [len(finding.sessions) for finding in server.state.findings] == [3]


def test_all_unseen_sessions_can_be_gone() -> None:
    """Somebody ended them all. The finding recovers, and closes when its time is over: its client has no session."""
    server = leaking()
    server.watch(170, 300, *all_hidden(SPREAD_OUT))
    server.watch(300, 400)
    assert [finding.state for finding in server.state.findings] == [FindingState.RECOVERING]
    server.watch(400, 500)
    assert server.state.findings == ()
    assert counted(server) == [1, 1, 5]


def test_a_recovering_finding_waits_while_its_client_cannot_be_seen() -> None:
    """Its next leaked sessions may be there already. After the grant they belong to the same finding."""
    server = leaking()
    later = [held(10 + i, 180 + 10 * i) for i in range(5)]
    server.poll(170)
    server.watch(180, 600, *all_hidden(later))
    assert [finding.state for finding in server.state.findings] == [FindingState.RECOVERING]
    server.watch(600, 700, *later)
    assert counted(server) == [1, 0, 10]


def test_a_session_that_moved_unseen_has_left_the_finding() -> None:
    """It is used again, or it is another one with the pid of a leaked one. Nothing is learned from how long it held."""
    server = leaking()
    server.watch(170, 300, *all_hidden(SPREAD_OUT))
    moved = session(0, since=NOW + 250, query_start=NOW + 250, born=NOW - 1000)
    reused = held(1, 290, born=NOW + 280)
    server.watch(300, 310, moved, reused, *SPREAD_OUT[2:])
    (finding,) = server.state.findings
    assert [each.id.pid for each in finding.sessions] == [2, 3, 4]
    assert server.state.hold_durations == {}


def test_another_user_s_session_with_the_pid_is_another_session() -> None:
    """The pid is used again at once. What can be seen of a hidden session tells that."""
    server = leaking()
    strangers = [replace(each, client=each.client._replace(user="reports")) for each in all_hidden(SPREAD_OUT)]
    server.watch(170, 180, *strangers)
    assert [finding.state for finding in server.state.findings] == [FindingState.RECOVERING]


def test_after_a_restart_of_the_server_no_pid_is_the_old_one() -> None:
    """When the server was started can be seen without any privilege."""
    server = leaking()
    restarted = replace(BIG, started_at=NOW + 165)
    server.poll(160, *SPREAD_OUT, server=replace(BIG, started_at=NOW - 5000))
    server.poll(170, *all_hidden(SPREAD_OUT), server=restarted)
    assert [finding.state for finding in server.state.findings] == [FindingState.RECOVERING]


def test_what_one_role_may_not_see_hides_no_other_finding() -> None:
    """Membership in one of two roles: the sessions of the other one are unseen, these are judged as ever."""
    server = PolledServer()
    mine = [
        replace(held(20 + i, 10 * i), client=each.client._replace(user="mine")) for i, each in enumerate(SPREAD_OUT)
    ]
    server.watch(0, 170, *SPREAD_OUT, *mine)
    grown = [replace(held(30 + i, 170 + 20 * i), client=mine[0].client) for i in range(5)]
    server.watch(170, 400, *all_hidden(SPREAD_OUT), *mine, *grown)
    found = {finding.key.client.user: (finding.state, len(finding.sessions)) for finding in server.state.findings}
    assert found == {"app": (FindingState.UNSEEN, 5), "mine": (FindingState.OPEN, 10)}


@pytest.mark.parametrize("at", [180, 300])
def test_the_state_survives_a_restart_while_nothing_can_be_seen(at: int) -> None:
    """The daemon is ended and started: the next polls know the sessions by what was kept."""
    server = leaking()
    server.watch(170, at, *all_hidden(SPREAD_OUT))
    server.state = decode_state(encode_state(server.state, statements="redacted"), server="db", statements="redacted")
    server.watch(at, 500, *all_hidden(SPREAD_OUT))
    assert [finding.state for finding in server.state.findings] == [FindingState.UNSEEN]
    server.watch(500, 600, *SPREAD_OUT)
    assert [finding.state for finding in server.state.findings] == [FindingState.OPEN]
    assert counted(server) == [1, 0, 5]


def test_what_is_seen_first_after_a_grant_is_no_growth() -> None:
    """Sessions that were there before the daemon could see them: nobody knows how often they were used."""
    server = PolledServer()
    used_once = [
        session(i, SessionState.IDLE, since=NOW + 20 * i + 1, born=NOW + 20 * i, query="SELECT * FROM orders")
        for i in range(20)
    ]
    for seconds in range(0, 700, 10):
        server.poll(seconds, *all_hidden(each for each in used_once if each.id.backend_start <= NOW + seconds))  # type: ignore[operator]  # known here
    server.watch(700, 900, *used_once)
    assert [finding.key.kind for finding in server.state.findings if finding.is_leak] == []
    assert not any(track.birth_seen for track in server.state.memory.history.tracks.values())


def test_a_kept_transaction_stays_with_its_finding() -> None:
    """A session in use whose transaction is never ended: it is the same transaction after the grant."""
    server = PolledServer()

    def kept(seconds: int) -> list[Session]:
        began = NOW + seconds - seconds % 10
        ends = session(9, since=began, query_start=began, born=NOW - 1000, query="COMMIT")
        return [held(i, seconds, xact_start=NOW - 400, query=f"SELECT {seconds} FROM orders") for i in range(3)] + [
            ends
        ]

    for seconds in range(0, 200, 10):
        server.poll(seconds, *kept(seconds))
    assert [finding.key.kind for finding in server.state.findings] == [LeakKind.TRANSACTION_KEPT]
    for seconds in range(200, 900, 10):
        server.poll(seconds, *all_hidden(kept(seconds)))
    assert [finding.state for finding in server.state.findings] == [FindingState.UNSEEN]
    for seconds in range(900, 1000, 10):
        server.poll(seconds, *kept(seconds))
    assert [finding.state for finding in server.state.findings] == [FindingState.OPEN]
    assert counted(server) == [1, 0, 3]


def test_an_unseen_leak_is_still_judged_by_the_slots_that_can_be_counted() -> None:
    """Hidden sessions use slots. A server that fills up meanwhile is critical."""
    server = leaking()
    small = ServerInfo(max_connections=8, superuser_reserved_connections=1)
    more = [held(10 + i, 200) for i in range(2)]
    server.watch(170, 180, *all_hidden(SPREAD_OUT), server=small)
    assert [finding.severity for finding in server.state.findings] == [Severity.WARNING]
    server.watch(180, 200, *all_hidden([*SPREAD_OUT, *more]), server=small)
    assert [finding.severity for finding in server.state.findings] == [Severity.CRITICAL]


def test_the_words_say_since_when_and_what_to_do() -> None:
    """The sentence has the number, the site, and the GRANT; the first advice is to look again."""
    server = leaking()
    server.watch(170, 300, *all_hidden(SPREAD_OUT))
    (finding,) = server.state.findings
    assert finding_sentence(finding, at=NOW + 290) == (
        "orders (shop, app): 5 sessions were idle in transaction at SELECT orders, the longest for 2 min, when they "
        "were last seen 2 min ago: now hidden from the monitoring role; GRANT pg_monitor makes them visible"
    )
    advice = advice_of(finding)
    assert advice.steps[0].startswith("Now: run `GRANT pg_monitor` for the monitoring role")
    assert advice.terminate is not None
