"""Adds up one poll of one server: its clients and its limits on connections."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pgwatch_sessions.core.judging.blocking import Blocking
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import OWN_APPLICATION, Client, LimitScope, Session, Snapshot
from pgwatch_sessions.core.summaries.clients import ClientSummary, count_hidden, empty_summary, summarise
from pgwatch_sessions.core.summaries.label_budget import LabelledClients


@dataclass(frozen=True, slots=True, kw_only=True)
class PollSummary:
    """One successful poll of one server, added up."""

    snapshot: Snapshot
    #: One for each labelled client, also for those without a session now; and one for `other` if any is folded.
    clients: tuple[ClientSummary, ...]
    #: Number of clients that are combined into `other`.
    folded: int
    slots: tuple[SlotUsage, ...]
    #: Sessions whose state our role may not see for lack of a GRANT.
    hidden: int

    @property
    def exhausted(self) -> bool:
        """Whether all slots for ordinary roles are in use."""
        return any(slots.used >= slots.capacity for slots in self.slots if slots.scope is LimitScope.SERVER)


def summarise_poll(server: str, snapshot: Snapshot, labelled: LabelledClients, blocking: Blocking) -> PollSummary:
    """Add up what a poll of a server returned, by labelled client."""
    by_label: dict[Client, list[Session]] = {}
    for session in snapshot.sessions:
        by_label.setdefault(labelled.label(session.client), []).append(session)
    folded = {session.client for session in snapshot.sessions} - labelled.seen_at.keys()
    summaries = [
        summarise(client, sessions, at=snapshot.taken_at, blocking=blocking) for client, sessions in by_label.items()
    ]
    summaries += [empty_summary(client) for client in labelled.seen_at if client not in by_label]
    return PollSummary(
        snapshot=snapshot,
        clients=tuple(sorted(summaries, key=lambda summary: summary.client)),
        folded=len(folded),
        slots=tuple(_slot_usages(server, snapshot)),
        hidden=count_hidden(snapshot.sessions),
    )


def _slot_usages(server: str, snapshot: Snapshot) -> Iterator[SlotUsage]:
    own_sessions = 0 if snapshot.own_user is None else 1
    limits = snapshot.server
    if limits.ordinary_slots is not None:
        yield SlotUsage(LimitScope.SERVER, server, limits.ordinary_slots, len(snapshot.sessions) + own_sessions)
    users = Counter(session.client.user for session in snapshot.sessions)
    users.update([snapshot.own_user] if snapshot.own_user else [])
    databases = Counter(session.client.database for session in snapshot.sessions)
    databases.update([snapshot.own_database] if snapshot.own_database else [])
    # The limit of our own role protects the server from us and limits no application, unless one uses the role too.
    ours = None if _shares_our_role(snapshot) else snapshot.own_user
    # CONNECTION LIMIT 0 locks a role or database out on purpose. It has no slots to run out of, so leave it out.
    for name, slots in limits.role_limits:
        if slots and name != ours:
            yield SlotUsage(LimitScope.ROLE, name, slots, users[name])
    for name, slots in limits.database_limits:
        if slots:
            yield SlotUsage(LimitScope.DATABASE, name, slots, databases[name])


def _shares_our_role(snapshot: Snapshot) -> bool:
    """Return whether another program than ours is logged in as our role."""
    return any(
        session.client.user == snapshot.own_user and session.client.application != OWN_APPLICATION
        for session in snapshot.sessions
    )
