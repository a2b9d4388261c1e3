"""What is known of one server after each look: one value, published whole.

`advance` is the only way from one state to the next. The state after a look that failed shows no session: absence is
said, not faked. What was learned before stays in the history.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pgwatch_sessions.core.clients import NO_CLIENTS, LabelledClients
from pgwatch_sessions.core.counts import LeakCounts
from pgwatch_sessions.core.detection import suspects
from pgwatch_sessions.core.diagnosis import Chart, blind, diagnose
from pgwatch_sessions.core.events import (
    ClientsFolded,
    Event,
    FindingEvent,
    PrivilegeMissing,
    ServerDown,
    ServerUp,
)
from pgwatch_sessions.core.findings import Diagnosed, Diagnosis, Finding
from pgwatch_sessions.core.forecast import Limit, Usage, forecast
from pgwatch_sessions.core.harm import Blocking
from pgwatch_sessions.core.histogram import Histogram, empty_histogram
from pgwatch_sessions.core.history import EndedHold, History
from pgwatch_sessions.core.model import (
    IDLE_IN_TRANSACTION_STATES,
    OTHER,
    Client,
    Failure,
    Reason,
    Snapshot,
)
from pgwatch_sessions.core.policy import Policy
from pgwatch_sessions.core.tools import recognise
from pgwatch_sessions.core.tracking import Surroundings, Tracked, track
from pgwatch_sessions.core.view import View, view_of

#: From a statement's pause to an afternoon.
_HOLD_BOUNDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
#: More sessions than any server has.
_ALL_OTHERS = 10**9
_LOOK_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


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
    #: The use of every limit over the growth window.
    usage: Usage = field(default_factory=Usage)
    #: Seconds until each limit is reached at the present growth; of the last look that succeeded.
    exhaustion: Mapping[Limit, float] = field(default_factory=dict)
    #: The open findings. A failed look leaves them: not seeing is not gone.
    tracked: tuple[Tracked, ...] = ()
    #: Findings opened and closed, and sessions leaked, since the daemon started.
    leaks: LeakCounts = field(default_factory=LeakCounts)
    chart: Chart = field(default_factory=Chart)
    #: Whether there were ever hidden sessions, and folded clients: that is told once.
    hid: bool = False
    folded: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The open findings."""
        return tuple(tracked.finding for tracked in self.tracked)

    @property
    def diagnoses(self) -> Mapping[Client | None, Diagnosis]:
        """The verdict on each labelled client, and under None on the server."""
        return self.chart.diagnoses

    @property
    def view(self) -> View | None:
        """What the last look showed: nothing when it failed."""
        return self.last_view if self.failure is None else None

    @property
    def looked(self) -> bool:
        """Whether a first look was attempted."""
        return self.last_view is not None or self.failure is not None


def advance(
    state: ServerState, outcome: Snapshot | Failure, *, policy: Policy, at: float, duration: float
) -> tuple[ServerState, tuple[Event, ...]]:
    """Take in one look: the state after it and what changed. `at` is the daemon's clock, `duration` seconds."""
    looks = state.looks.observe((duration,))
    if isinstance(outcome, Failure):
        failures = {**state.failures, outcome.reason: state.failures[outcome.reason] + 1}
        chart, verdicts = blind(state.chart, outcome.detail or outcome.reason)
        after = replace(state, failure=outcome, looks=looks, failures=failures, chart=chart)
        return after, (*_changes(state, after), *verdicts)
    snapshot = state.history.name(outcome)
    leaked = {identity for tracked in state.tracked if tracked.finding.is_leak for identity in tracked.members}
    history, ended = state.history.follow(snapshot, rest_limit=policy.hold_limit / 2, leaked=leaked)
    labelled = _admit(state.labelled, snapshot, state.findings, policy)
    blocking = Blocking(snapshot.sessions)
    view = view_of(state.server, snapshot, labelled, blocking)
    after = replace(
        state,
        last_view=view,
        failure=None,
        last_success=at,
        looks=looks,
        holds=_observe_holds(state.holds, ended, policy),
        labelled=labelled,
        history=history,
        usage=state.usage.add(snapshot.taken_at, view.slots, window=policy.growth_window),
        hid=state.hid or view.hidden > 0,
        folded=state.folded or view.folded > 0,
    )
    after, events = _judge(state, after, view, blocking, policy)
    return after, (*_changes(state, after), *events)


def _judge(
    before: ServerState, after: ServerState, view: View, blocking: Blocking, policy: Policy
) -> tuple[ServerState, tuple[FindingEvent | Diagnosed, ...]]:
    """Look for leaks in what a look has shown, and give the verdicts."""
    now, history = view.snapshot.taken_at, after.history
    around = Surroundings(
        now=now,
        history=history,
        policy=policy,
        blocking=blocking,
        slots=view.slots,
        forecast=lambda leaking: forecast(view.slots, leaking, after.usage, window=policy.growth_window),
        is_tool=recognise(policy.tools),
    )
    tracking = track(before.tracked, suspects(history, policy), around)
    findings = [each.finding for each in tracking.tracked]
    chart, verdicts = diagnose(
        before.chart,
        before.history,
        history,
        clients=after.labelled.seen_at,
        findings=findings,
        slots=view.slots,
        blocking=blocking,
        policy=policy,
    )
    leaks = after.leaks.count(tracking.events, before.findings, findings, max_clients=policy.max_clients)
    judged = replace(after, exhaustion=tracking.exhaustion, tracked=tracking.tracked, chart=chart, leaks=leaks)
    return judged, (*tracking.events, *verdicts)


def _admit(
    labelled: LabelledClients, snapshot: Snapshot, findings: Iterable[Finding], policy: Policy
) -> LabelledClients:
    counts = Counter(session.client for session in snapshot.sessions)
    counts.update({finding.key.client: _ALL_OTHERS for finding in findings})  # who leaks is never folded
    return labelled.admit(counts, at=snapshot.taken_at, budget=policy.max_clients, remember=policy.growth_window)


def _observe_holds(
    holds: Mapping[str, Histogram], ended: tuple[EndedHold, ...], policy: Policy
) -> Mapping[str, Histogram]:
    durations: dict[str, list[float]] = {}
    for hold in ended:
        if hold.session.state not in IDLE_IN_TRANSACTION_STATES:
            continue
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
    view = after.last_view
    if view is None:
        return
    if before.view is None:
        yield ServerUp()
    if after.hid and not before.hid:
        yield PrivilegeMissing(view.snapshot.own_user, view.hidden)
    if after.folded and not before.folded:
        yield ClientsFolded(view.folded)
