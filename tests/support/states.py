"""Published states for tests of what is shown: looks at leaking, healthy and unseen servers, taken in by the core."""

from collections.abc import Iterable
from itertools import accumulate

from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.model import (
    Client,
    ConnectionLimit,
    Failure,
    FailureReason,
    LimitScope,
    ServerInfo,
    Session,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.state import ServerState, advance
from tests.support.values import NOW, ORDERS, session, snapshot

SERVER = ServerInfo(
    version_num=180004,
    started_at=NOW - 1e6,
    max_connections=30,
    superuser_reserved_connections=3,
    role_limits=(ConnectionLimit("app", 20),),
)
POLLS, INTERVAL, BETWEEN_LEAKS = 40, 10.0, 25.0
END = NOW + (POLLS - 1) * INTERVAL
#: Sessions that leaked until then.
LEAKED = 16
LEAKING_STATEMENT = (
    "SELECT * FROM orders WHERE id = $1::INTEGER AND card = 'swordfish' AND cvc = 4711 /*route='/orders/%7Bid%7D'*/"
)
REFUSED = Failure(
    reason=FailureReason.EXHAUSTED, detail="FATAL: sorry, too many clients already", exhausted_scope=LimitScope.SERVER
)


def after(*outcomes: Snapshot | Failure, server: str = "orders-db", policy: Policy | None = None) -> ServerState:
    """Return what is published after these polls."""
    states = accumulate(
        outcomes,
        lambda state, outcome: advance(state, outcome, policy=policy or Policy(), at=END, duration=0.003)[0],
        initial=ServerState(server=server),
    )
    return list(states)[-1]


def leaking(
    *last: Snapshot | Failure, server: str = "orders-db", client: Client = ORDERS, query: str = LEAKING_STATEMENT
) -> ServerState:
    """Return a state in which a client has leaked 2.4 sessions a minute; then, it may be, come these polls."""
    return after(*polls_at_a_leak(client, query), *last, server=server)


def polls_at_a_leak(client: Client = ORDERS, query: str = LEAKING_STATEMENT) -> Iterable[Snapshot]:
    """Yield looks at a client that leaks, beside one that works."""
    for poll in range(POLLS):
        held = [_held(number, client, query) for number in range(int(poll * INTERVAL / BETWEEN_LEAKS) + 1)]
        busy = session(
            900, SessionState.ACTIVE, since=NOW + poll * INTERVAL - 1, client=Client("shop", "web", "checkout")
        )
        yield snapshot(*held, busy, at=NOW + poll * INTERVAL, server=SERVER)


def _held(number: int, client: Client, query: str) -> Session:
    since = NOW + number * BETWEEN_LEAKS
    return session(100 + number, SessionState.IDLE_IN_TRANSACTION, since=since, client=client, query=query)
