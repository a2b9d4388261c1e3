"""What is known of one server after each look: one value, published whole.

`advance` is the only way from one state to the next. The state after a look that failed shows no session: absence is
said, not faked. What was learned before stays in the history.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pgwatch_sessions.core.clients import (
    NO_CLIENTS,
    ClientSummary,
    LabelledClients,
    nothing_of,
    summarise,
)
from pgwatch_sessions.core.histogram import Histogram, empty_histogram
from pgwatch_sessions.core.history import EndedHold, History
from pgwatch_sessions.core.model import OTHER, Client, Failure, Reason, Scope, Session, Snapshot

#: From a statement's pause to an afternoon.
_HOLD_BOUNDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_LOOK_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to judge what is seen. Times are seconds."""

    #: How long a session may be held before it is a finding.
    hold_limit: float = 60.0
    #: Over which growth is judged, and how long a client without sessions is remembered.
    growth_window: float = 600.0
    #: A forecast nearer than this is critical.
    horizon: float = 3600.0
    #: Clients, and databases, that get labels of their own.
    max_clients: int = 100


class Slots(NamedTuple):
    """A limit on connections and its use."""

    scope: Scope
    name: str
    capacity: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the last look showed, added up for those who read it."""

    snapshot: Snapshot
    #: One a labelled client, those without a session at present included; and `other` when anything is folded.
    clients: tuple[ClientSummary, ...]
    #: Clients inside `other`.
    folded: int
    slots: tuple[Slots, ...]
    hidden: int

    @property
    def exhausted(self) -> bool:
        """Whether roles without privilege are refused for lack of slots."""
        return any(slots.used >= slots.capacity for slots in self.slots if slots.scope is Scope.SERVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """All that is published of one server."""

    server: str
    #: What the last look that succeeded showed.
    last_view: View | None = None
    #: Why the last look showed nothing, if it did.
    failure: Failure | None = None
    #: By the daemon's clock.
    last_success: float | None = None
    looks: Histogram = field(default_factory=lambda: empty_histogram(*_LOOK_BOUNDS))
    failures: Mapping[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    #: Durations of ended holds by database.
    holds: Mapping[str, Histogram] = field(default_factory=dict)
    labelled: LabelledClients = NO_CLIENTS
    history: History = field(default_factory=History)

    @property
    def view(self) -> View | None:
        """What the last look showed: nothing when it failed."""
        return self.last_view if self.failure is None else None

    @property
    def looked(self) -> bool:
        """Whether a first look was attempted."""
        return self.last_view is not None or self.failure is not None


class ServerUp(NamedTuple):
    """A look succeeded, the first one or after a failure."""


class ServerDown(NamedTuple):
    """Looks began to fail, or fail for another reason."""

    failure: Failure


class PrivilegeMissing(NamedTuple):
    """Sessions are hidden from the monitoring role."""

    role: str | None
    hidden_sessions: int


class ClientsFolded(NamedTuple):
    """There are more clients than labels."""

    folded_clients: int


Event = ServerUp | ServerDown | PrivilegeMissing | ClientsFolded


def advance(
    state: ServerState, outcome: Snapshot | Failure, *, policy: Policy, at: float, duration: float
) -> tuple[ServerState, tuple[Event, ...]]:
    """Take in one look: the state after it and what changed. `at` is the daemon's clock, `duration` seconds."""
    looks = state.looks.observe((duration,))
    if isinstance(outcome, Failure):
        failures = {**state.failures, outcome.reason: state.failures[outcome.reason] + 1}
        after = replace(state, failure=outcome, looks=looks, failures=failures)
    else:
        history, ended = state.history.follow(outcome)
        labelled = _admit(state.labelled, outcome, policy)
        after = replace(
            state,
            last_view=_view(state.server, outcome, labelled),
            failure=None,
            last_success=at,
            looks=looks,
            holds=_observe_holds(state.holds, ended, policy),
            labelled=labelled,
            history=history,
        )
    return after, tuple(_changes(state, after))


def _admit(labelled: LabelledClients, snapshot: Snapshot, policy: Policy) -> LabelledClients:
    counts = Counter(session.client for session in snapshot.sessions)
    return labelled.admit(counts, at=snapshot.taken_at, budget=policy.max_clients, remember=policy.growth_window)


def _view(server: str, snapshot: Snapshot, labelled: LabelledClients) -> View:
    by_label: dict[Client, list[Session]] = {}
    for session in snapshot.sessions:
        by_label.setdefault(labelled.label(session.client), []).append(session)
    folded = {session.client for session in snapshot.sessions} - labelled.seen_at.keys()
    summaries = [summarise(client, sessions, at=snapshot.taken_at) for client, sessions in by_label.items()]
    summaries += [nothing_of(client) for client in labelled.seen_at if client not in by_label]
    return View(
        snapshot=snapshot,
        clients=tuple(sorted(summaries, key=lambda summary: summary.client)),
        folded=len(folded),
        slots=tuple(_slots(server, snapshot)),
        hidden=sum(summary.hidden for summary in summaries),
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
    yield from (Slots(Scope.ROLE, name, slots, users[name]) for name, slots in limits.role_limits)
    yield from (Slots(Scope.DATABASE, name, slots, databases[name]) for name, slots in limits.database_limits)


def _observe_holds(
    holds: Mapping[str, Histogram], ended: tuple[EndedHold, ...], policy: Policy
) -> Mapping[str, Histogram]:
    durations: dict[str, list[float]] = {}
    for hold in ended:
        database = hold.session.client.database
        known = database in holds or database in durations or len(holds) + len(durations) < policy.max_clients
        durations.setdefault(database if known else OTHER, []).append(hold.seconds)
    observed = {
        database: holds.get(database, empty_histogram(*_HOLD_BOUNDS)).observe(seconds)
        for database, seconds in durations.items()
    }
    return {**holds, **observed}


def _changes(before: ServerState, after: ServerState) -> Iterator[Event]:
    if after.failure is not None:
        if before.failure is None or before.failure.reason is not after.failure.reason:
            yield ServerDown(after.failure)
        return
    shown, shows = before.last_view, after.last_view
    if shows is None:
        return
    if before.view is None:
        yield ServerUp()
    if shows.hidden and not (shown and shown.hidden):
        yield PrivilegeMissing(shows.snapshot.own_user, shows.hidden)
    if shows.folded and not (shown and shown.folded):
        yield ClientsFolded(shows.folded)
