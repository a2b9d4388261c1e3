"""What one look showed, added up for those who read it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pgwatch_sessions.core.clients import ClientSummary, LabelledClients, nothing_of, summarise, unseen
from pgwatch_sessions.core.forecast import Slots
from pgwatch_sessions.core.harm import Blocking
from pgwatch_sessions.core.model import Client, Scope, Session, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One look, added up."""

    snapshot: Snapshot
    #: One a labelled client, those without a session at present included; and `other` when anything is folded.
    clients: tuple[ClientSummary, ...]
    #: Clients inside `other`.
    folded: int
    slots: tuple[Slots, ...]
    #: Sessions whose state our role lacks the privilege to see.
    hidden: int

    @property
    def exhausted(self) -> bool:
        """Whether roles without privilege are refused for lack of slots."""
        return any(slots.used >= slots.capacity for slots in self.slots if slots.scope is Scope.SERVER)


def view_of(server: str, snapshot: Snapshot, labelled: LabelledClients, blocking: Blocking) -> View:
    """Add up what a look at a server showed, by labelled client."""
    by_label: dict[Client, list[Session]] = {}
    for session in snapshot.sessions:
        by_label.setdefault(labelled.label(session.client), []).append(session)
    folded = {session.client for session in snapshot.sessions} - labelled.seen_at.keys()
    summaries = [
        summarise(client, sessions, at=snapshot.taken_at, blocking=blocking) for client, sessions in by_label.items()
    ]
    summaries += [nothing_of(client) for client in labelled.seen_at if client not in by_label]
    return View(
        snapshot=snapshot,
        clients=tuple(sorted(summaries, key=lambda summary: summary.client)),
        folded=len(folded),
        slots=tuple(_slots(server, snapshot)),
        hidden=unseen(snapshot.sessions),
    )


def _slots(server: str, snapshot: Snapshot) -> Iterator[Slots]:
    own = snapshot.own_user is not None
    limits = snapshot.server
    if limits.ordinary_slots is not None:
        yield Slots(Scope.SERVER, server, limits.ordinary_slots, len(snapshot.sessions) + own)
    users = Counter(session.client.user for session in snapshot.sessions)
    users.update([snapshot.own_user] if snapshot.own_user else [])
    databases = Counter(session.client.database for session in snapshot.sessions)
    databases.update([snapshot.own_database] if snapshot.own_database else [])
    # A limit of 0 shuts a role or database out; there is nothing to be used up.
    yield from (Slots(Scope.ROLE, name, slots, users[name]) for name, slots in limits.role_limits if slots)
    yield from (Slots(Scope.DATABASE, name, slots, databases[name]) for name, slots in limits.database_limits if slots)
