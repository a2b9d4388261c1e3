import pytest

from pgwatch_sessions.core.events import LeakClosed, LeakOpened
from pgwatch_sessions.core.findings import FindingState, Severity, Verdict
from tests.support.polled_server import ACTIVE, PolledServer, held
from tests.support.values import NOW, session


def come_and_go(server: PolledServer, *, times: int, length: int, every: int, one_transaction: bool = False) -> None:
    """Hold one session at a time, again and again, and let each hold end by itself."""
    for seconds in range(0, times * every, 10):
        number, age = divmod(seconds, every)
        began = number * every
        transaction = NOW + (0 if one_transaction else began)
        if age < length:
            server.poll(seconds, held(1, began, xact_start=transaction))
        else:
            server.poll(
                seconds,
                session(
                    1,
                    ACTIVE,
                    since=NOW + began + length,
                    query_start=NOW + began + length,
                    born=NOW - 1000,
                    xact_start=transaction,
                ),
            )


def test_long_holds_that_come_back_are_one_warning() -> None:
    """Each of 2 min ends by itself, every 5 min. One finding stays open, and its client leaks, also in the pauses."""
    server = PolledServer()
    come_and_go(server, times=5, length=120, every=300)
    (finding,) = server.state.findings
    assert (finding.severity, finding.is_leak, finding.state) == (Severity.WARNING, False, FindingState.RECOVERING)
    assert finding.recurrence is not None
    assert (finding.recurrence.holds, finding.recurrence.shortest) == (5, 120)
    assert finding.rate_per_minute == 0
    assert server.state.diagnoses[finding.key.client].verdict is Verdict.LEAKING
    assert sum(isinstance(event, LeakOpened) for event in server.events) == 1
    before = len(server.events)
    server.watch(1500, 1500 + 4000)
    assert [type(event) for event in server.events[before:] if isinstance(event, LeakClosed)] == [LeakClosed]


@pytest.mark.parametrize(
    ("times", "length", "every", "one_transaction"),
    [
        pytest.param(3, 120, 300, False, id="three rounds of a batch"),
        pytest.param(6, 120, 300, True, id="a batch in one transaction"),
        pytest.param(6, 50, 300, False, id="shorter than the limit"),
        pytest.param(4, 70, 80, False, id="for some minutes only"),
    ],
)
def test_long_holds_that_do_not_recur_are_a_notice(times: int, length: int, every: int, one_transaction: bool) -> None:
    """They may end for good."""
    server = PolledServer()
    come_and_go(server, times=times, length=length, every=every, one_transaction=one_transaction)
    assert {finding.severity for finding in server.state.findings} <= {Severity.NOTICE}
