from pgwatch_sessions.core.events import LeakChanged, LeakEvent
from pgwatch_sessions.core.findings import FindingState
from pgwatch_sessions.core.judging.configured_limits import ConfiguredLimit
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import Session
from pgwatch_sessions.wording.event_lines import event_text
from pgwatch_sessions.wording.sentences import finding_text
from tests.support.polled_server import HELD, SPREAD_OUT, PolledServer, held
from tests.support.values import NOW, session


def writing(pid: int, query: str, since: float, began: float) -> Session:
    """Return a session that is idle in a transaction with an xid."""
    fields: dict[str, object] = {"born": NOW - 1000, "xact_start": NOW + began, "backend_xid_age": 5}
    return session(pid, HELD, since=NOW + since, query=query, **fields)  # type: ignore[arg-type]  # fields of `session`


def test_a_finding_names_the_last_write_and_keeps_that_name() -> None:
    """The first session's write was seen. Neither its end nor sessions without a known write rename the finding."""
    server = PolledServer()
    server.poll(0, writing(1, "UPDATE stock SET n = 1", 0, -1))
    read = "SELECT * FROM orders"
    lost = [writing(number, read, 5 * number, 5 * number - 6) for number in range(1, 6)]
    for poll in range(10, 300, 10):
        server.poll(poll, *[each for each in lost if (each.state_change or 0) < NOW + poll][int(poll > 200) :])
    names = [(event.finding.key.site, event.finding.site) for event in server.events if isinstance(event, LeakEvent)]
    assert set(names) == {("SELECT orders", "UPDATE stock")}
    (finding,) = server.state.findings
    assert [each.statement.summary for each in finding.sessions] == ["SELECT orders"] * 4, "the statement that is shown"
    assert " idle in transaction at UPDATE stock, " in finding_text(finding, at=NOW + 300)


def test_a_write_that_is_seen_later_does_not_rename_a_finding() -> None:
    """Only the second session's write was seen."""
    server = PolledServer()
    read, first = "SELECT * FROM orders", writing(1, "SELECT * FROM orders", 0, -1)
    server.watch(10, 100, first)
    server.poll(100, first, writing(2, "UPDATE stock SET n = 1", 99, 95))
    server.watch(110, 300, first, writing(2, read, 104, 95), writing(3, read, 130, 129))
    assert {event.finding.site for event in server.events if isinstance(event, LeakEvent)} == {"SELECT orders"}


def test_a_configured_limit_goes_by_the_write_too() -> None:
    """A pattern is written as findings show the site."""
    server = PolledServer()
    server.policy = Policy(hold_limits=(ConfiguredLimit(site="UPDATE stock", limit=120.0),))
    server.poll(0, writing(1, "UPDATE stock SET n = 1", -1, -2))
    server.watch(10, 120, writing(1, "SELECT * FROM orders", 5, -2))
    assert not server.state.findings
    server.watch(120, 140, writing(1, "SELECT * FROM orders", 5, -2))
    (finding,) = server.state.findings
    assert (finding.site, finding.configured_limit) == ("UPDATE stock", 120.0)


def test_a_reload_that_allows_the_holds_closes_their_finding() -> None:
    """It recovers at the next poll, and says why. A site without a limit of its own keeps its finding."""
    server = PolledServer()
    other = [held(10 + i, 10 * i, "invoices") for i in range(5)]
    server.watch(0, 170, *SPREAD_OUT, *other)
    server.policy = Policy(hold_limits=(ConfiguredLimit(site="SELECT orders", limit=1800.0),))
    (changed,) = [event for event in server.poll(170, *SPREAD_OUT, *other) if isinstance(event, LeakChanged)]
    assert changed.finding.state is FindingState.RECOVERING
    assert event_text(changed, at=NOW + 170).startswith(
        "orders (shop, app): all 5 sessions at SELECT orders have ended or are used again, or held for less than "
        "30 min, their limit by configuration; closes in "
    )
    server.watch(180, 400, *SPREAD_OUT, *other)
    assert [finding.key.site for finding in server.state.findings] == ["SELECT invoices"]


def test_a_finding_beyond_a_configured_limit_names_it() -> None:
    """Once it is over its own limit, it is reported like any other."""
    server = PolledServer()
    server.policy = Policy(hold_limits=(ConfiguredLimit(application="orders", limit=120.0),))
    server.watch(0, 200, *SPREAD_OUT)
    (finding,) = server.state.findings
    assert finding.configured_limit == 120.0
    assert finding_text(finding, at=NOW + 190).startswith(
        "5 sessions idle in transaction at SELECT orders, the longest for 3 min, limit 2 min by configuration"
    )
