"""Adds up the sessions of one client at one poll."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgwatch_sessions.core.judging.blocking import NO_BLOCKING, Blocking
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, LOCK_WAIT, Client, Session, SessionState

_NO_STATES: Mapping[SessionState, int] = dict.fromkeys(SessionState, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSummary:
    """All sessions of one client at one poll.

    Ages are in seconds, None where no session has such an age, and 0 while the server's clock is set back behind it.
    """

    client: Client
    sessions: int
    #: Sessions whose state the monitoring role may not see. If there are any, the other numbers are incomplete.
    hidden: int
    #: Sessions in each state; zeros included.
    states: Mapping[SessionState, int]
    #: The longest time in each state that has a session.
    state_age_max: Mapping[SessionState, float]
    transaction_age_max: float | None
    query_age_max: float | None
    xmin_age_max: int | None
    #: Sessions of this client that wait for a heavyweight lock.
    lock_waiting: int
    #: Sessions of any client that wait for this client's sessions that are idle in transaction.
    blocked_sessions: int

    @property
    def idle_in_transaction_age_max(self) -> float | None:
        """The longest time any session has been idle in transaction, aborted or not."""
        return max(
            (age for state, age in self.state_age_max.items() if state in IDLE_IN_TRANSACTION_STATES), default=None
        )


def empty_summary(client: Client) -> ClientSummary:
    """Return the summary of a client that has no session now."""
    return summarise(client, (), at=0.0)


def summarise(
    client: Client, sessions: Iterable[Session], *, at: float, blocking: Blocking = NO_BLOCKING
) -> ClientSummary:
    """Add up the sessions of one client. `at` is the server's time of the poll."""
    states = dict(_NO_STATES)
    state_ages: dict[SessionState, float] = {}
    transactions: list[float] = []
    queries: list[float] = []
    xmins: list[int] = []
    idle_in_transaction: set[int] = set()
    total = hidden = lock_waiting = 0
    for session in sessions:
        total += 1
        if session.state is None:
            hidden += 1
            continue
        states[session.state] += 1
        if session.state in IDLE_IN_TRANSACTION_STATES:
            idle_in_transaction.add(session.id.pid)
        if session.state_change is not None:
            state_ages[session.state] = max(at - session.state_change, state_ages.get(session.state, 0.0))
        if session.xact_start is not None:
            transactions.append(max(0.0, at - session.xact_start))
        if session.query_start is not None and session.state is SessionState.ACTIVE:
            queries.append(max(0.0, at - session.query_start))
        if session.backend_xmin_age is not None:
            xmins.append(session.backend_xmin_age)
        lock_waiting += session.wait_event_type == LOCK_WAIT
    return ClientSummary(
        client=client,
        sessions=total,
        hidden=hidden,
        states=states,
        state_age_max=state_ages,
        transaction_age_max=max(transactions, default=None),
        query_age_max=max(queries, default=None),
        xmin_age_max=max(xmins, default=None),
        lock_waiting=lock_waiting,
        blocked_sessions=len(blocking.waiting_for(idle_in_transaction)) if blocking else 0,
    )


def count_hidden(sessions: Iterable[Session]) -> int:
    """Count the hidden sessions that a GRANT would make visible."""
    return sum(session.is_hidden for session in sessions)
