"""A server that is polled with made-up sessions, so that a test sees what the core says of them."""

from pgwatch_sessions.core.events import Event
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import ServerInfo, Session, SessionState, Snapshot
from pgwatch_sessions.core.state import ServerState, advance
from tests.support.values import NOW, session, snapshot

HELD, ACTIVE = SessionState.IDLE_IN_TRANSACTION, SessionState.ACTIVE
BIG = ServerInfo(max_connections=1000)


def held(pid: int, since: float, site: str = "orders", **fields: object) -> Session:
    """Return a session held since so many seconds after NOW."""
    fields = {"born": NOW - 1000, "query": f"SELECT * FROM {site}"} | fields
    return session(pid, HELD, since=NOW + since, **fields)  # type: ignore[arg-type]  # fields of `session`


class PolledServer:
    """Its state and events after each poll."""

    def __init__(self) -> None:
        self.state = ServerState(server="db")
        self.events: list[Event] = []
        self.policy = Policy()

    def poll(self, seconds: float, *sessions: Session, server: ServerInfo = BIG) -> list[Event]:
        """Poll this many seconds after NOW; return the events."""
        poll: Snapshot = snapshot(*sessions, at=NOW + seconds, server=server)
        self.state, events = advance(self.state, poll, policy=self.policy, at=NOW + seconds, duration=0.01)
        self.events += events
        return list(events)

    def watch(self, begin: int, end: int, *sessions: Session, server: ServerInfo = BIG) -> None:
        """Poll every ten seconds and see the same sessions."""
        for seconds in range(begin, end, 10):
            self.poll(seconds, *sessions, server=server)


#: Five holds that began ten seconds apart.
SPREAD_OUT = [held(i, 10 * i) for i in range(5)]
