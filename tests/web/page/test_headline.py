"""The headline: what comes first, and what is never claimed."""

from dataclasses import replace

from pgwatch_sessions.core.model import Client, Failure, FailureReason, LimitScope, SessionState
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.web.page.headline import headline_of
from pgwatch_sessions.web.ranked_findings import rank_findings
from pgwatch_sessions.wording.lines import Tone
from tests.support.states import END, REFUSED, SERVER, after, leaking
from tests.support.values import NOW, session, snapshot

UNREACHABLE = Failure(reason=FailureReason.NETWORK)
HEALTHY = after(snapshot(session(1), server=SERVER), server="calm")


def recovering(server: str = "healed") -> ServerState:
    """Return a server whose leak has ended but is not closed yet."""
    return leaking(snapshot(at=END + 10, server=SERVER), server=server)


def with_a_warning(server: str = "warned") -> ServerState:
    """Return a server on which one session does harm to nobody yet."""
    held = session(1, SessionState.IDLE_IN_TRANSACTION, since=NOW, backend_xmin_age=2_000_000)
    return after(*(snapshot(held, at=NOW + seconds, server=SERVER) for seconds in range(0, 300, 10)), server=server)


def full(server: str = "full") -> ServerState:
    """Return a server whose slots are all busy."""
    web = Client("shop", "web", "checkout")
    busy = [session(pid, SessionState.ACTIVE, since=NOW - 1, client=web) for pid in range(26)]
    return after(snapshot(*busy, server=SERVER), server=server)


def test_an_outage_comes_first_then_what_matters_most() -> None:
    """A server that refuses everybody, one that cannot be polled, a critical leak, then the rest, which is counted."""
    states = [with_a_warning(), leaking(server="leaking"), after(UNREACHABLE, server="gone"), full()]
    headline = headline_of(states)
    assert headline.text == (
        "full refuses connections: all slots for ordinary roles are in use; gone cannot be polled: it cannot be "
        "reached; orders leaks at /orders/{id} on leaking, out of connections in 100 s, and 1 more finding"
    )
    assert headline.tone is Tone.BAD


def test_a_client_without_application_name_is_named_in_words() -> None:
    """By its role and database, in the headline, in the verdict on the server and in the list of clients."""
    state = leaking(client=Client("shop", "app", ""))
    assert headline_of([state]).text == "app@shop leaks at /orders/{id}, out of connections in 100 s"
    assert state.diagnoses[None].reason.startswith("app@shop: ")


def test_the_server_that_refuses_us_comes_before_its_leak() -> None:
    """The forecast was made before the refusal, so it is left out."""
    headline = headline_of([leaking(REFUSED)])
    assert headline.text.endswith("all slots for ordinary roles are in use; orders leaks at /orders/{id}")


def test_a_limit_of_our_own_role_is_not_called_a_full_server() -> None:
    """Other roles can still connect."""
    own = replace(REFUSED, exhausted_scope=LimitScope.ROLE)
    assert headline_of([after(own, server="db")]).text.startswith("db cannot be polled: ")


def test_a_recovering_finding_is_never_first() -> None:
    """Whatever has sessions comes before it, and alone it alarms nobody."""
    states = [recovering(), with_a_warning()]
    assert [each.state.server for each in rank_findings(states)] == ["warned", "healed"]
    assert headline_of(states).text == "orders holds connections at SELECT ? on warned"
    assert headline_of([recovering()]) == ("Nothing is leaking (1 finding recovering)", Tone.GOOD)


def test_nothing_is_leaking_is_said_only_if_everything_is_seen() -> None:
    """Hidden sessions, and servers that were not polled yet, are named."""
    hidden = after(snapshot(session(1, None), session(2), server=SERVER), server="blind")
    assert headline_of([HEALTHY]) == ("Nothing is leaking", Tone.GOOD)
    assert headline_of([HEALTHY, hidden]) == (
        "blind: 1 of 2 sessions is hidden from the monitoring role: leaks among them cannot be seen", Tone.WARN,
    )  # fmt: skip
    assert headline_of([HEALTHY, ServerState(server="new")]) == ("new was not polled yet", Tone.NOTE)
