"""Gives one verdict on each client and on the server, with the reason."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pgwatch_sessions.core.events import DiagnosisChanged
from pgwatch_sessions.core.findings import Diagnosis, Finding, Severity, Verdict
from pgwatch_sessions.core.history import Cohort, History, Track
from pgwatch_sessions.core.judging.detection import held_since, longest_first
from pgwatch_sessions.core.judging.hold_limits import MIN_KILLS
from pgwatch_sessions.core.judging.maintenance_tools import is_maintenance_work
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.judging.saturation import Activity, activity_of, saturation, with_latest
from pgwatch_sessions.core.limits import SlotUsage
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, LOCK_WAIT, Client, LimitScope, SessionState

#: A server is too small for its load from this part of its slots on.
_FULL = 0.9
#: A lock must be waited for this part of the hold limit.
_MIN_WAIT = 1 / 6
#: A verdict takes effect when it has been the same for this part of the hold limit.
_STEADY = 0.1
_MAX_BLOCKERS_NAMED = 3
#: So many sessions, and half of the client's, run slow queries.
_MIN_SLOW = 2


class PendingVerdict(NamedTuple):
    """A verdict that has not taken effect yet."""

    verdict: Verdict
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisMemory:
    """What is remembered from poll to poll. The key None stands for the server."""

    #: Each client's activity within the last hold limits.
    activity: Mapping[Client, tuple[Activity, ...]] = field(default_factory=dict)
    #: The verdicts in effect.
    diagnoses: Mapping[Client | None, Diagnosis] = field(default_factory=dict)
    #: Verdicts that differ from those in effect.
    pending: Mapping[Client | None, PendingVerdict] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEvidence:
    """What the verdict on one client is based on."""

    tracks: Sequence[Track]
    activity: Sequence[Activity]
    #: Open findings of this client, of at least WARNING, that have sessions or will have others.
    leaks: Sequence[Finding]
    context: PollContext
    #: The verdict in effect.
    former: Verdict | None = None


def diagnose(
    memory: DiagnosisMemory, context: PollContext, *, clients: Iterable[Client], findings: Iterable[Finding]
) -> tuple[DiagnosisMemory, tuple[DiagnosisChanged, ...]]:
    """Return the memory after a poll, with a verdict on the server and on each of `clients`, and what changed."""
    tracks = {client: context.tracks.get(client, ()) for client in clients}
    leaks: dict[Client, list[Finding]] = {}
    for finding in findings:
        if finding.severity.rank >= Severity.WARNING.rank and _goes_on(finding, context):
            leaks.setdefault(finding.key.client, []).append(finding)
    before, after = context.history_before.tracks, context.history.tracks
    ended = Counter(track.session.client for identity, track in before.items() if identity not in after)
    activity = {
        client: with_latest(memory.activity.get(client, ()), activity_of(own, context, ended=ended[client]), context)
        for client, own in tracks.items()
    }
    found: dict[Client | None, Diagnosis] = {
        client: diagnose_client(
            client,
            ClientEvidence(
                tracks=own,
                activity=activity[client],
                leaks=leaks.get(client, ()),
                context=context,
                former=memory.diagnoses[client].verdict if client in memory.diagnoses else None,
            ),
        )
        for client, own in tracks.items()
    }
    found[None] = diagnose_server(found.values(), context.slots, hidden=_hidden_from_us(context.history))
    return _settle(replace(memory, activity=activity), found, context)


def _goes_on(finding: Finding, context: PollContext) -> bool:
    """Return whether a finding has sessions, or others will come: it recurs, or the server just terminated them."""
    if finding.sessions or finding.recurrence:
        return True
    kills = context.limits.recent_kills(Cohort(finding.key.client, finding.key.site)) if finding.is_leak else ()
    return len(kills) >= MIN_KILLS and context.now - kills[-1].at <= context.policy.hold_limit


def diagnose_failure(memory: DiagnosisMemory, reason: str) -> tuple[DiagnosisMemory, tuple[DiagnosisChanged, ...]]:
    """Return the memory after a failed poll: the server is UNKNOWN, and there is no verdict on any client."""
    unknown = Diagnosis(client=None, verdict=Verdict.UNKNOWN, reason=reason)
    former = memory.diagnoses.get(None)
    verdict = former.verdict if former else None
    events = () if verdict is Verdict.UNKNOWN else (DiagnosisChanged(unknown, verdict),)
    return replace(memory, diagnoses={None: unknown}, pending={}), events


def diagnose_client(client: Client, evidence: ClientEvidence) -> Diagnosis:
    """Return the first verdict of CLIENT_RULES that has a reason, else OK."""
    for verdict, rule in CLIENT_RULES:
        reason = rule(evidence)
        if reason:
            return Diagnosis(client=client, verdict=verdict, reason=reason)
    return Diagnosis(client=client, verdict=Verdict.OK)


def _hidden(evidence: ClientEvidence) -> str:
    return _hidden_part(sum(track.session.state is None for track in evidence.tracks), len(evidence.tracks))


def _hidden_from_us(history: History) -> str:
    tracks = history.tracks.values()
    return _hidden_part(sum(track.session.is_hidden for track in tracks), len(tracks))


def _hidden_part(hidden: int, sessions: int) -> str:
    return f"hidden from the monitoring role: {hidden} of {sessions} sessions" if hidden else ""


def _leaking(evidence: ClientEvidence) -> str:
    return "; ".join(
        f"{len(leak.sessions)} held at {leak.site}"
        if leak.recurrence is None
        else f"long holds come back at {leak.site}"
        for leak in evidence.leaks
    )


def _blocked(evidence: ClientEvidence) -> str:
    """Say who blocks, if sessions wait for one that is held, or at least half of the running statements wait."""
    context = evidence.context
    limit = context.policy.hold_limit
    active = [track.session for track in evidence.tracks if track.session.state is SessionState.ACTIVE]
    waiting = [session for session in active if session.wait_event_type == LOCK_WAIT or session.blocked_by]
    if not waiting:
        return ""
    roots = {root for session in waiting for root in context.blocking.roots_of(session.id.pid)}
    blockers = [track for track in context.history.tracks.values() if track.session.id.pid in roots]
    held = any(
        each.session.state in IDLE_IN_TRANSACTION_STATES and context.now - held_since(each) > limit for each in blockers
    )
    starts = (session.query_start for session in waiting if session.query_start is not None)
    longest = max((0.0, *(context.now - start for start in starts)))
    if not held and (2 * len(waiting) < len(active) or longest < _MIN_WAIT * limit):
        return ""
    return (
        f"{len(waiting)} of {len(active)} active sessions wait for locks{_held_by(blockers, roots)}, "
        f"the longest for {longest:.0f} s"
    )


def _held_by(blockers: Sequence[Track], roots: Collection[int]) -> str:
    """Name the sessions at the head of the queue, the longest held first."""
    if not roots:
        return ""
    known = [
        f"{each.session.client.application} at {each.session.statement.site} (pid {each.session.id.pid})"
        for each in sorted(blockers, key=longest_first)[:_MAX_BLOCKERS_NAMED]
    ]
    return f" held by {', '.join(known) or ', '.join(f'pid {pid}' for pid in sorted(roots)[:_MAX_BLOCKERS_NAMED])}"


def _slow(evidence: ClientEvidence) -> str:
    """Say how many sessions run one query for long. Dumps, vacuums and index builds take their time."""
    now, limit = evidence.context.now, evidence.context.policy.hold_limit
    judged = [
        track.session
        for track in evidence.tracks
        if not evidence.context.is_tool(track.session.client) and not is_maintenance_work(track.session.statement.text)
    ]
    slow = sum(
        session.state is SessionState.ACTIVE and session.query_start is not None and now - session.query_start > limit
        for session in judged
    )
    if slow < _MIN_SLOW or 2 * slow < len(judged):
        return ""
    return f"{slow} of {len(judged)} sessions have run one query for over {limit:.0f} s: make it faster or limit it"


def _saturated(evidence: ClientEvidence) -> str:
    return saturation(evidence.activity, evidence.context, is_saturated=evidence.former is Verdict.SATURATED)


#: The verdicts on a client. The first rule that returns a reason decides.
CLIENT_RULES: tuple[tuple[Verdict, Callable[[ClientEvidence], str]], ...] = (
    (Verdict.UNKNOWN, _hidden),
    (Verdict.BLOCKED, _blocked),
    (Verdict.LEAKING, _leaking),
    (Verdict.SLOW, _slow),
    (Verdict.SATURATED, _saturated),
)
#: The server takes over the worst verdict on its clients.
_WORST_FIRST = (Verdict.BLOCKED, Verdict.LEAKING, Verdict.SATURATED, Verdict.SLOW)


def diagnose_server(clients: Iterable[Diagnosis], slots: Iterable[SlotUsage], *, hidden: str) -> Diagnosis:
    """Return the verdict on the server from those on its clients and from the use of its slots.

    `hidden` says how many sessions are hidden, or is empty: among hidden sessions, leaks cannot be seen.
    """
    by_verdict: dict[Verdict, list[Diagnosis]] = {}
    for diagnosis in clients:
        by_verdict.setdefault(diagnosis.verdict, []).append(diagnosis)
    full = [each for each in slots if each.scope is LimitScope.SERVER and each.used >= _FULL * each.capacity]
    if not {Verdict.LEAKING, Verdict.BLOCKED} & by_verdict.keys() and full:
        reason = f"{full[0].used} of {full[0].capacity} slots are in use"
        return Diagnosis(client=None, verdict=Verdict.SATURATED, reason=reason)
    for verdict in _WORST_FIRST:
        if verdict in by_verdict:
            return Diagnosis(client=None, verdict=verdict, reason=_reasons(by_verdict[verdict]))
    return Diagnosis(client=None, verdict=Verdict.UNKNOWN if hidden else Verdict.OK, reason=hidden)


def _reasons(diagnoses: Iterable[Diagnosis]) -> str:
    return "; ".join(f"{each.client.short_name}: {each.reason}" for each in diagnoses if each.client is not None)


def _settle(
    memory: DiagnosisMemory, found: Mapping[Client | None, Diagnosis], context: PollContext
) -> tuple[DiagnosisMemory, tuple[DiagnosisChanged, ...]]:
    """Let the verdicts take effect that have been the same for long enough."""
    steady = _STEADY * context.policy.hold_limit
    since = {who: _pending_since(memory, who, diagnosis.verdict, context.now) for who, diagnosis in found.items()}
    settled = {
        who: diagnosis
        if _takes_effect_at_once(memory.diagnoses.get(who), diagnosis) or context.now - since[who] >= steady
        else memory.diagnoses[who]
        for who, diagnosis in found.items()
    }
    pending = {
        who: PendingVerdict(diagnosis.verdict, since[who])
        for who, diagnosis in found.items()
        if settled[who].verdict is not diagnosis.verdict
    }
    return replace(memory, diagnoses=settled, pending=pending), tuple(_changes(memory.diagnoses, settled))


def _takes_effect_at_once(former: Diagnosis | None, diagnosis: Diagnosis) -> bool:
    """Return whether a verdict need not be steady: the first one, or LEAKING, since findings were confirmed already."""
    if former is None or former.verdict in {diagnosis.verdict, Verdict.UNKNOWN}:
        return True
    return Verdict.LEAKING in {diagnosis.verdict, former.verdict}


def _pending_since(memory: DiagnosisMemory, who: Client | None, verdict: Verdict, now: float) -> float:
    pending = memory.pending.get(who)
    return min(pending.since, now) if pending is not None and pending.verdict is verdict else now


def _changes(
    before: Mapping[Client | None, Diagnosis], after: Mapping[Client | None, Diagnosis]
) -> Iterator[DiagnosisChanged]:
    for who, diagnosis in after.items():
        former = before.get(who)
        if former is None and diagnosis.verdict is Verdict.OK:
            continue  # a new client without a problem is not worth an event
        if former is None or former.verdict is not diagnosis.verdict:
            yield DiagnosisChanged(diagnosis, former.verdict if former else None)
    for who, former in before.items():
        if who is not None and who not in after and former.verdict is not Verdict.OK:
            gone = Diagnosis(client=who, verdict=Verdict.OK, reason="it has no session any more")
            yield DiagnosisChanged(gone, former.verdict)
