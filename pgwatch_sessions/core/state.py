"""What is known of one server after each poll. `advance` is the only way from one state to the next.

After a failed poll the state shows no sessions, so their metrics disappear instead of going stale or zero. Open
findings stay open, because their sessions may still be there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pgwatch_sessions.core.events import (
    ClientsFolded,
    DiagnosisChanged,
    Event,
    LeakEvent,
    PrivilegeMissing,
    ServerDown,
    ServerUp,
)
from pgwatch_sessions.core.findings import Diagnosis, Finding
from pgwatch_sessions.core.history import EndedHold, History
from pgwatch_sessions.core.judging.blocking import Blocked, Blocking, follow_blocked
from pgwatch_sessions.core.judging.detectors import detect
from pgwatch_sessions.core.judging.diagnosis import DiagnosisMemory, diagnose, diagnose_failure
from pgwatch_sessions.core.judging.forecast import UsageHistory
from pgwatch_sessions.core.judging.hold_limits import HoldLimits
from pgwatch_sessions.core.judging.policy import Policy
from pgwatch_sessions.core.judging.poll_context import PollContext, tracks_by_client
from pgwatch_sessions.core.judging.tracked_finding import TrackedFinding
from pgwatch_sessions.core.judging.tracking import track
from pgwatch_sessions.core.limits import LimitId
from pgwatch_sessions.core.model import (
    IDLE_IN_TRANSACTION_STATES,
    OTHER,
    Client,
    Failure,
    FailureReason,
    LimitScope,
    SessionId,
    Snapshot,
)
from pgwatch_sessions.core.summaries.histogram import Histogram, empty_histogram
from pgwatch_sessions.core.summaries.label_budget import NO_CLIENTS, LabelledClients
from pgwatch_sessions.core.summaries.leak_counters import LeakCounters
from pgwatch_sessions.core.summaries.not_judged import NotJudged, not_judged
from pgwatch_sessions.core.summaries.poll import PollSummary, summarise_poll

#: Histogram buckets, in seconds, for time idle in transaction.
_HOLD_BOUNDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
#: Histogram buckets, in seconds, for the duration of polls.
_POLL_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
#: More sessions than any server has: the weight, in the label budget, of a client with an open finding.
_NEVER_FOLDED = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What only the next poll needs. Nothing of it is published."""

    history: History = field(default_factory=History)
    #: The use of every limit over the growth window.
    usage: UsageHistory = field(default_factory=UsageHistory)
    #: The open findings with what continues them. A failed poll does not change them.
    tracked: tuple[TrackedFinding, ...] = ()
    diagnosis: DiagnosisMemory = field(default_factory=DiagnosisMemory)
    #: Since when others have waited for sessions that are idle in transaction.
    blocked: Mapping[SessionId, Blocked] = field(default_factory=dict)
    #: Whether there were ever hidden sessions, and folded clients. Each is reported once.
    had_hidden: bool = False
    had_folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """All that is published of one server, and the memory for the next poll."""

    server: str
    #: The last successful poll.
    last_summary: PollSummary | None = None
    #: Why the last poll failed; None if it succeeded.
    failure: Failure | None = None
    #: When a poll last succeeded, by the daemon's clock.
    last_success: float | None = None
    poll_durations: Histogram = field(default_factory=lambda: empty_histogram(*_POLL_BOUNDS))
    poll_failures: Mapping[FailureReason, int] = field(default_factory=lambda: dict.fromkeys(FailureReason, 0))
    #: Polls that were not recorded, counted by the program that records them.
    recording_failures: int = 0
    #: How long transactions sat idle, by database.
    hold_durations: Mapping[str, Histogram] = field(default_factory=dict)
    #: The clients that have metric labels of their own.
    labelled: LabelledClients = NO_CLIENTS
    #: Seconds until each limit is reached at the present growth, as of the last successful poll.
    exhaustion: Mapping[LimitId, float] = field(default_factory=dict)
    #: Held sessions that are not reported, and why; none if the last poll failed.
    not_judged: tuple[NotJudged, ...] = ()
    #: Counted since the daemon started, or since it first kept its state.
    leak_counters: LeakCounters = field(default_factory=LeakCounters)
    memory: Memory = field(default_factory=Memory)

    @property
    def summary(self) -> PollSummary | None:
        """The last poll; None if it failed."""
        return self.last_summary if self.failure is None else None

    @property
    def is_full(self) -> bool:
        """Whether the server refuses ordinary roles, by its slots or by its answer to our connect."""
        if self.failure is None:
            return self.last_summary is not None and self.last_summary.exhausted
        return self.failure.reason is FailureReason.EXHAUSTED and self.failure.exhausted_scope is LimitScope.SERVER

    @property
    def polled(self) -> bool:
        """Whether the first poll has been attempted."""
        return self.last_summary is not None or self.failure is not None

    @property
    def first_poll_at(self) -> float | None:
        """The server's time of the first successful poll."""
        return self.memory.history.first_poll_at

    @property
    def last_poll_at(self) -> float | None:
        """The server's time of the last successful poll."""
        return self.memory.history.last_poll_at

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The open findings."""
        return tuple(tracked.finding for tracked in self.memory.tracked)

    @property
    def diagnoses(self) -> Mapping[Client | None, Diagnosis]:
        """The verdict on each labelled client, and under the key None the verdict on the server."""
        return self.memory.diagnosis.diagnoses


def advance(
    state: ServerState, outcome: Snapshot | Failure, *, policy: Policy, at: float, duration: float
) -> tuple[ServerState, tuple[Event, ...]]:
    """Return the state after a poll and the events it caused. `at` is the daemon's time, `duration` in seconds."""
    durations = state.poll_durations.observe((duration,))
    if isinstance(outcome, Failure):
        after, verdicts = _after_failure(replace(state, poll_durations=durations), outcome)
        return after, (*_changes(state, after), *verdicts)
    after, events = _after_success(replace(state, poll_durations=durations), outcome, policy, at)
    return after, (*_changes(state, after), *events)


def _after_failure(state: ServerState, failure: Failure) -> tuple[ServerState, tuple[DiagnosisChanged, ...]]:
    failures = {**state.poll_failures, failure.reason: state.poll_failures[failure.reason] + 1}
    diagnosis, verdicts = diagnose_failure(state.memory.diagnosis, failure.detail or failure.reason)
    memory = replace(state.memory, diagnosis=diagnosis)
    return replace(state, failure=failure, poll_failures=failures, not_judged=(), memory=memory), verdicts


def _after_success(
    state: ServerState, polled: Snapshot, policy: Policy, at: float
) -> tuple[ServerState, tuple[LeakEvent | DiagnosisChanged, ...]]:
    before = state.memory
    snapshot = before.history.recognise(polled)
    leaked = {identity for tracked in before.tracked if tracked.finding.is_leak for identity in tracked.members}
    history, ended = before.history.follow(
        snapshot, rest_limit=policy.hold_limit / 2, window=policy.growth_window, leaked=leaked
    )
    labelled = _admit(state.labelled, snapshot, state.findings, policy)
    blocking = Blocking(snapshot.sessions)
    summary = summarise_poll(state.server, snapshot, labelled, blocking)
    context = PollContext(
        now=snapshot.taken_at,
        history_before=before.history,
        history=history,
        blocking=blocking,
        # A waiter may give up, and the next one comes.
        blocked=follow_blocked(
            before.blocked, snapshot.sessions, blocking, now=snapshot.taken_at, pause=policy.hold_limit
        ),
        slots=summary.slots,
        usage=before.usage.add(snapshot.taken_at, summary.slots, window=policy.growth_window),
        policy=policy,
        limits=HoldLimits(history, policy),
        tracks=tracks_by_client(history.tracks.values()),
    )
    tracking = track(before.tracked, detect(context), context)
    findings = [tracked.finding for tracked in tracking.tracked]
    diagnosis, verdicts = diagnose(before.diagnosis, context, clients=labelled.seen_at, findings=findings)
    after = replace(
        state,
        last_summary=summary,
        failure=None,
        last_success=at,
        hold_durations=_observe_holds(state.hold_durations, ended, policy),
        labelled=labelled,
        exhaustion=tracking.exhaustion,
        not_judged=not_judged(context, findings),
        leak_counters=state.leak_counters.count(
            tracking.events, state.findings, findings, max_clients=policy.max_clients
        ),
        memory=Memory(
            history=history,
            usage=context.usage,
            tracked=tracking.tracked,
            diagnosis=diagnosis,
            blocked=context.blocked,
            had_hidden=before.had_hidden or summary.hidden > 0,
            had_folded=before.had_folded or summary.folded > 0,
        ),
    )
    return after, (*tracking.events, *verdicts)


def _admit(
    labelled: LabelledClients, snapshot: Snapshot, findings: Iterable[Finding], policy: Policy
) -> LabelledClients:
    counts = Counter(session.client for session in snapshot.sessions)
    counts.update({finding.key.client: _NEVER_FOLDED for finding in findings})
    return labelled.admit(counts, at=snapshot.taken_at, budget=policy.max_clients, remember=policy.growth_window)


def _observe_holds(
    durations: Mapping[str, Histogram], ended: tuple[EndedHold, ...], policy: Policy
) -> Mapping[str, Histogram]:
    observed: dict[str, list[float]] = {}
    for hold in ended:
        if hold.session.state not in IDLE_IN_TRANSACTION_STATES:
            continue
        database = hold.session.client.database
        known = database in durations or database in observed or len(durations) + len(observed) < policy.max_clients
        observed.setdefault(database if known else OTHER, []).append(hold.seconds)
    return {
        **durations,
        **{
            database: durations.get(database, empty_histogram(*_HOLD_BOUNDS)).observe(seconds)
            for database, seconds in observed.items()
        },
    }


def _changes(before: ServerState, after: ServerState) -> Iterator[Event]:
    """Yield the events about the server itself."""
    if after.failure is not None:
        if before.failure is None or before.failure.reason is not after.failure.reason:
            yield ServerDown(after.failure)
        return
    summary = after.last_summary
    if summary is None:
        return
    if before.summary is None:
        yield ServerUp(next((slots for slots in summary.slots if slots.scope is LimitScope.SERVER), None))
    if after.memory.had_hidden and not before.memory.had_hidden:
        yield PrivilegeMissing(summary.snapshot.own_user, summary.hidden, len(summary.snapshot.sessions))
    if after.memory.had_folded and not before.memory.had_folded:
        yield ClientsFolded(summary.folded)
