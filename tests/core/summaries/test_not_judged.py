"""Each row is one poll or two: what is held, or may be, and the reason why nobody hears of it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pgwatch_sessions.core.judging.configured_limits import ConfiguredLimit
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Client, Session, SessionState
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.not_judged import NotJudged, NotJudgedReason
from pgwatch_sessions.wording.not_judged import not_judged_text
from tests.support.states import REFUSED, after
from tests.support.values import NOW, ORDERS, session, snapshot

HELD, IDLE = SessionState.IDLE_IN_TRANSACTION, SessionState.IDLE
PSQL = Client("shop", "ann", "psql")
SELECT = "SELECT * FROM orders"


def held(seconds: float, pid: int = 1, client: Client = ORDERS) -> Session:
    """Return a session that has been idle in transaction for so long."""
    return session(pid, HELD, since=NOW - seconds, client=client, query=SELECT)


def alone(*sessions: Session, policy: Policy | None = None) -> Sequence[NotJudged]:
    """Return what one poll does not judge."""
    return after(snapshot(*sessions), policy=policy).not_judged


@pytest.mark.parametrize(
    ("sessions", "text"),
    [
        pytest.param(
            [held(360, client=PSQL)],
            "psql (shop, ann), 6 min idle in transaction: a console, reported only when it blocks others or holds back "
            "vacuum, or when such sessions fill the server; `--tools ''` judges it",
            id="console",
        ),
        pytest.param(
            [held(70, client=Client("shop", "ann", "pg_dump"))],
            "pg_dump (shop, ann), 70 s idle in transaction: a maintenance tool, reported only when it blocks others or "
            "holds back vacuum, or when such sessions fill the server; `--tools ''` judges it",
            id="tool",
        ),
        pytest.param(
            [held(20), held(30, 2)],
            "orders (shop, app), 2 sessions, up to 30 s idle in transaction: younger than the hold limit of 60 s",
            id="young",
        ),
        pytest.param(
            [session(1, None), session(2, None)],
            "orders (shop, app), 2 sessions: hidden from the monitoring role; GRANT pg_monitor makes them visible",
            id="hidden",
        ),
        pytest.param(
            [session(1, IDLE, since=NOW - 90, query=SELECT)],
            "orders (shop, app), 90 s idle after a statement: leaked, or at rest in a pool; this is known when "
            "sessions of this client have been used again a few times while they were watched",
            id="habit unknown",
        ),
    ],
)  # fmt: skip
def test_what_is_not_judged_is_said_with_its_reason(sessions: Sequence[Session], text: str) -> None:
    """One line for each client and reason."""
    assert [not_judged_text(each) for each in alone(*sessions)] == [text]


@pytest.mark.parametrize(
    "sessions",
    [
        pytest.param([held(61)], id="a finding"),
        pytest.param([held(61), held(30, 2)], id="a finding and the next session of its client"),
        pytest.param([held(0.5)], id="a transaction at work"),
        pytest.param([session(1, SessionState.ACTIVE, since=NOW - 90)], id="a long query"),
        pytest.param([session(1, IDLE, since=NOW - 90, query="ROLLBACK")], id="returned to its pool"),
        pytest.param([session(1, IDLE, since=NOW - 90, query="LISTEN jobs")], id="meant to wait"),
        pytest.param([session(1, IDLE, since=NOW - 90, query=SELECT, client=PSQL)], id="console without transaction"),
        pytest.param([session(1, None, client=Client("rdsadmin", "rdsadmin", ""))], id="the service's own"),
        pytest.param([replace(held(70), state_change=None)], id="a time is missing"),
    ],
)
def test_what_needs_no_judgement_has_no_line(sessions: Sequence[Session]) -> None:
    """Findings are reported elsewhere, and healthy sessions not at all."""
    assert alone(*sessions) == ()


def test_a_console_is_judged_if_it_is_no_tool() -> None:
    """`--tools ''` leaves no tool."""
    state = after(snapshot(held(360, client=PSQL)), policy=Policy(tools=()))
    assert [finding.key.client for finding in state.findings] == [PSQL]
    assert state.not_judged == ()


def test_a_hold_that_is_normal_at_its_site_says_from_when_on_it_is_judged() -> None:
    """A hold of 50 s ended there, so holds of 100 s are normal."""
    ended = replace(held(0, 2), state=IDLE, state_change=NOW - 69)
    state = after(snapshot(held(120, 2), at=NOW - 70), snapshot(ended, at=NOW - 69), snapshot(ended, held(70), at=NOW))
    (line,) = [each for each in state.not_judged if each.in_transaction]
    assert line.reason is NotJudgedReason.HABIT
    assert line.limit == pytest.approx(100, abs=2)
    assert not_judged_text(line).endswith("normal at its site, where long holds have ended before; judged after 100 s")


def test_a_configured_limit_is_named_as_the_reason() -> None:
    """It applies from the next poll on; another site of the client keeps the hold limit."""
    policy = Policy(hold_limits=(ConfiguredLimit(application="ord*", site="SELECT orders", limit=1800.0),))
    other = session(2, HELD, since=NOW - 30, query="SELECT * FROM invoices")
    configured, young = alone(held(720), other, policy=policy)
    assert (configured.reason, configured.limit, young.limit) == (NotJudgedReason.CONFIGURED, 1800.0, 60.0)
    assert not_judged_text(configured) == (
        "orders (shop, app), 12 min idle in transaction: younger than its limit of 30 min by configuration"
    )


def test_a_daemon_lists_no_transaction_that_is_at_work() -> None:
    """Holds of a few seconds come and go in every application: they are listed after a sixth of the limit."""
    state = after(snapshot(at=NOW - 600), snapshot(held(9), held(11, 2), at=NOW))
    assert [each.sessions for each in state.not_judged] == [1]


def test_after_a_failed_poll_nothing_is_listed() -> None:
    """The sessions may be gone."""
    state: ServerState = after(snapshot(held(30)), REFUSED)
    assert state.not_judged == ()


def test_hidden_clients_come_first_and_the_longest_hold_before_others() -> None:
    """What nobody can see is the greatest gap."""
    lines = alone(held(20), held(30, 2, PSQL), held(40, 3, Client("shop", "bob", "psql")), session(4, None))
    assert [(each.reason, each.client.user) for each in lines] == [
        (NotJudgedReason.HIDDEN, "app"),
        (NotJudgedReason.TOOL, "bob"),
        (NotJudgedReason.TOOL, "ann"),
        (NotJudgedReason.YOUNG, "app"),
    ]
