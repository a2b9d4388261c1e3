"""Which client a session belongs to, what its sessions do now, and which clients get labels of their own."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pgwatch_sessions.core.harm import NOBODY_WAITS, Blocking
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, NONE, OTHER_CLIENT, Client, Session, SessionState
from pgwatch_sessions.core.statements import Statement

#: PgBouncer's application_name_add_host appends " - host:port"; the port differs from session to session.
_POOLER_SUFFIX = re.compile(r" - (?:\[?[0-9A-Fa-f:.]+\]?|[\w.-]+):\d+$")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NO_STATES: Mapping[SessionState, int] = dict.fromkeys(SessionState, 0)
_WAITS_FOR_LOCK = "Lock"
#: Of managed services, whose own sessions are shown to nobody else, whatever was granted.
_SERVICE_USERS = frozenset(
    {"alloydbadmin", "azure_superuser", "azuresu", "cloudsqladmin", "cloudsqlagent", "rdsadmin", "rdsproxyadmin"}
)


@lru_cache(maxsize=4096)
def _clean(name: str) -> str:
    return _UNPRINTABLE.sub("?", name).strip()


@lru_cache(maxsize=4096)
def client_of(database: str | None, user: str | None, application_name: str | None, tagged: str | None) -> Client:
    """Name the client; a blank application_name gives way to the application that the statement's tags name."""
    application = _clean(_POOLER_SUFFIX.sub("", application_name or "")) or _clean(tagged or "")
    return Client(_clean(database or "") or NONE, _clean(user or "") or NONE, application or NONE)


def tagged_application(statement: Statement) -> str | None:
    """Return what the statement's comment tags call the application."""
    if not statement.tags:
        return None
    tags = dict(statement.tags)
    return tags.get("application") or tags.get("app_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSummary:
    """One client's sessions at one look, all together. Ages are seconds, None where no session has one."""

    client: Client
    sessions: int
    #: Sessions whose state the monitoring role may not see. When there are any, the rest is not the whole truth.
    hidden: int
    #: Every state, zeros included.
    states: Mapping[SessionState, int]
    #: The longest time in each state that has a session.
    state_age_max: Mapping[SessionState, float]
    transaction_age_max: float | None
    query_age_max: float | None
    xmin_age_max: int | None
    lock_waiting: int
    #: Sessions of anybody that wait for its sessions which are idle in transaction.
    blocked_by: int

    @property
    def idle_in_transaction_age_max(self) -> float | None:
        """The longest time any session has been idle in transaction, aborted or not."""
        return max(
            (age for state, age in self.state_age_max.items() if state in IDLE_IN_TRANSACTION_STATES), default=None
        )


def nothing_of(client: Client) -> ClientSummary:
    """Summarise a client that has no session at present."""
    return summarise(client, (), at=0.0)


def summarise(
    client: Client, sessions: Iterable[Session], *, at: float, blocking: Blocking = NOBODY_WAITS
) -> ClientSummary:
    """Add up the sessions of one client as they were `at` the server's time."""
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
            transactions.append(at - session.xact_start)
        if session.query_start is not None and session.state is SessionState.ACTIVE:
            queries.append(at - session.query_start)
        if session.backend_xmin_age is not None:
            xmins.append(session.backend_xmin_age)
        lock_waiting += session.wait_event_type == _WAITS_FOR_LOCK
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
        blocked_by=len(blocking.waiting_for(idle_in_transaction)) if blocking else 0,
    )


def unseen(sessions: Iterable[Session]) -> int:
    """Count the hidden sessions that a GRANT would let us see."""
    return sum(session.state is None and session.client.user not in _SERVICE_USERS for session in sessions)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledClients:
    """The clients that have labels of their own: a sticky top-K, so that series do not come and go with the ranking.

    A client keeps its place while it has sessions and for `remember` seconds after. A newcomer takes a free place, or
    the place of a client with less than half of its sessions.
    """

    #: When each was last seen with a session.
    seen_at: Mapping[Client, float]

    def admit(self, counts: Mapping[Client, int], *, at: float, budget: int, remember: float) -> "LabelledClients":
        """Choose again with the sessions per client of a new look; at most `budget` places."""
        kept = {client: seen for client, seen in self.seen_at.items() if client in counts or at - seen < remember}
        kept.update((client, at) for client in kept if client in counts)
        newcomers = sorted((client for client in counts if client not in kept), key=lambda c: (-counts[c], c))
        weakest = sorted(kept, key=lambda c: (counts.get(c, 0), kept[c], c))
        for newcomer in newcomers:
            if len(kept) >= budget:
                if not weakest or counts[newcomer] <= 2 * counts.get(weakest[0], 0):
                    break
                del kept[weakest.pop(0)]
            kept[newcomer] = at
        return LabelledClients(seen_at=kept)

    def label(self, client: Client) -> Client:
        """Return the client whose labels this one's sessions are shown under."""
        return client if client in self.seen_at else OTHER_CLIENT


NO_CLIENTS = LabelledClients(seen_at={})
