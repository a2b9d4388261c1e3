"""What is wrong with a client or a server: one verdict each, and why.

A pool that is too small looks full, busy and young; a leak looks full, quiet and old.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pgwatch_sessions.core.findings import Diagnosed, Diagnosis, Finding, Severity, Verdict
from pgwatch_sessions.core.forecast import Slots
from pgwatch_sessions.core.harm import Blocking
from pgwatch_sessions.core.history import History, Track
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Scope, SessionState
from pgwatch_sessions.core.policy import Policy

#: What of a client's sessions must be busy for it to be saturated, and in how many of the looks of a limit.
_BUSY = 0.9
_BUSY_LOOKS = 0.8
_MIN_LOOKS = 3
_MIN_SESSIONS = 2
#: So much of what is busy must have gone on to another transaction since the last look.
_TURNOVER = 0.4
#: A server with so much of its slots in use is too small for what it serves.
_FULL = 0.9
#: Part of the limit that a lock must be waited for.
_WAIT = 1 / 6
#: A verdict is given when it has held for this part of the limit.
_STEADY = 0.1
_MAX_POINTS = 60


class Point(NamedTuple):
    """A client at one look."""

    at: float
    sessions: int
    busy: int
    #: Of the busy ones, those that went on since the look before.
    turned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What diagnosis remembers: recent points of clients, and verdicts on their way."""

    points: Mapping[Client, tuple[Point, ...]] = field(default_factory=dict)
    #: The verdict in force, by client; None is the server.
    diagnoses: Mapping[Client | None, Diagnosis] = field(default_factory=dict)
    #: A different verdict, and since when it is seen.
    pending: Mapping[Client | None, tuple[Verdict, float]] = field(default_factory=dict)


def diagnose(
    chart: Chart,
    before: History,
    after: History,
    *,
    clients: Iterable[Client],
    findings: Sequence[Finding],
    slots: Sequence[Slots],
    blocking: Blocking,
    policy: Policy,
) -> tuple[Chart, tuple[Diagnosed, ...]]:
    """Judge every labelled client and the server after a look: the chart after it, and the verdicts that changed."""
    now = after.taken_at or 0.0
    tracks: dict[Client, list[Track]] = {client: [] for client in clients}
    for track in after.tracks.values():
        if track.session.client in tracks:
            tracks[track.session.client].append(track)
    points = {
        client: _charted(chart.points.get(client, ()), _point(now, before, own), policy)
        for client, own in tracks.items()
    }
    found: dict[Client | None, Diagnosis] = {
        client: _of_client(client, own, points[client], findings, blocking=blocking, now=now, policy=policy)
        for client, own in tracks.items()
    }
    found[None] = _of_server(found, slots, tracks)
    return _settle(replace(chart, points=points), found, now, policy)


def blind(chart: Chart, reason: str) -> tuple[Chart, tuple[Diagnosed, ...]]:
    """Say after a failed look that nothing is known of the server; what was known of clients is withdrawn."""
    unknown = Diagnosis(client=None, verdict=Verdict.UNKNOWN, reason=reason)
    former = chart.diagnoses.get(None)
    verdict = former.verdict if former else None
    events = () if verdict is Verdict.UNKNOWN else (Diagnosed(unknown, verdict),)
    return replace(chart, diagnoses={None: unknown}, pending={}), events


def _point(now: float, before: History, tracks: Iterable[Track]) -> Point:
    sessions = busy = turned = 0
    for track in tracks:
        sessions += 1
        session = track.session
        if session.state is SessionState.ACTIVE or session.state in IDLE_IN_TRANSACTION_STATES:
            busy += 1
            old = before.tracks.get(session.id)
            # A batch runs statement after statement in one long transaction: it turns nothing over.
            turned += old is None or old.session.xact_start != session.xact_start
    return Point(now, sessions, busy, turned)


def _charted(points: tuple[Point, ...], point: Point, policy: Policy) -> tuple[Point, ...]:
    kept = [old for old in points if point.at - policy.hold_limit <= old.at < point.at]
    return (*kept[-_MAX_POINTS:], point)


def _of_client(
    client: Client,
    tracks: Sequence[Track],
    points: Sequence[Point],
    findings: Iterable[Finding],
    *,
    blocking: Blocking,
    now: float,
    policy: Policy,
) -> Diagnosis:
    verdict, reason = next(
        (
            (verdict, reason)
            for verdict, reason in (
                (Verdict.UNKNOWN, _hidden(tracks)),
                (Verdict.LEAKING, _leaking(client, findings)),
                (Verdict.BLOCKED, _blocked(tracks, blocking, now, policy)),
                (Verdict.SLOW, _slow(tracks, now, policy)),
                (Verdict.SATURATED, _saturated(points)),
            )
            if reason
        ),
        (Verdict.OK, ""),
    )
    return Diagnosis(client=client, verdict=verdict, reason=reason)


def _hidden(tracks: Iterable[Track]) -> str:
    hidden = sum(track.session.state is None for track in tracks)
    return f"{hidden} sessions whose state may not be seen" if hidden else ""


def _leaking(client: Client, findings: Iterable[Finding]) -> str:
    leaks = [
        finding
        for finding in findings
        if finding.key.client == client and finding.sessions and finding.severity.rank >= Severity.WARNING.rank
    ]
    return "; ".join(f"{len(leak.sessions)} held at {leak.key.site}" for leak in leaks)


def _blocked(tracks: Iterable[Track], blocking: Blocking, now: float, policy: Policy) -> str:
    """Say who blocks when most of what a client runs waits for locks."""
    busy = [track.session for track in tracks if track.session.state is SessionState.ACTIVE]
    waiting = [session for session in busy if session.wait_event_type == "Lock"]
    if not waiting or 2 * len(waiting) < len(busy):
        return ""
    longest = max((now - session.query_start for session in waiting if session.query_start is not None), default=0.0)
    if longest < _WAIT * policy.hold_limit:
        return ""
    roots = sorted({root for session in waiting for root in blocking.roots_of(session.id.pid)})
    behind = f" behind {', '.join(map(str, roots[:3]))}" if roots else ""
    return f"{len(waiting)} wait for locks{behind}, the longest for {longest:.0f} s"


def _slow(tracks: Sequence[Track], now: float, policy: Policy) -> str:
    ages = [
        now - track.session.query_start
        for track in tracks
        if track.session.state is SessionState.ACTIVE and track.session.query_start is not None
    ]
    slow = [age for age in ages if age > policy.hold_limit]
    if len(slow) < _MIN_SESSIONS or 2 * len(slow) < len(tracks):
        return ""
    return f"{len(slow)} of {len(tracks)} sessions run one query for over {policy.hold_limit:.0f} s"


def _saturated(points: Sequence[Point]) -> str:
    """Tell a pool that is too small: its number of sessions does not move, all are busy, and all get on."""
    most = max(point.sessions for point in points) if points else 0
    full = [point for point in points if point.busy >= _BUSY * point.sessions and point.sessions >= _BUSY * most]
    if most < _MIN_SESSIONS or len(points) < _MIN_LOOKS or len(full) < _BUSY_LOOKS * len(points):
        return ""
    if sum(point.turned for point in full) < _TURNOVER * sum(point.busy for point in full):
        return ""
    return f"all of up to {most} sessions are busy and turning over"


_WORST_FIRST = (Verdict.LEAKING, Verdict.BLOCKED, Verdict.SATURATED, Verdict.SLOW)


def _of_server(
    clients: Mapping[Client | None, Diagnosis], slots: Iterable[Slots], tracks: Mapping[Client, Sequence[Track]]
) -> Diagnosis:
    full = [each for each in slots if each.scope is Scope.SERVER and each.used >= _FULL * each.capacity]
    by_verdict: dict[Verdict, list[Diagnosis]] = {}
    for diagnosis in clients.values():
        by_verdict.setdefault(diagnosis.verdict, []).append(diagnosis)
    if Verdict.LEAKING not in by_verdict and full:
        reason = f"{full[0].used} of {full[0].capacity} slots are in use"
        return Diagnosis(client=None, verdict=Verdict.SATURATED, reason=reason)
    for verdict in _WORST_FIRST:
        if verdict in by_verdict:
            return Diagnosis(client=None, verdict=verdict, reason=_together(by_verdict[verdict]))
    if len(by_verdict.get(Verdict.UNKNOWN, ())) > len(tracks) / 2:
        return Diagnosis(client=None, verdict=Verdict.UNKNOWN, reason="most sessions are hidden")
    return Diagnosis(client=None, verdict=Verdict.OK)


def _together(diagnoses: Iterable[Diagnosis]) -> str:
    return "; ".join(
        f"{diagnosis.client.application}: {diagnosis.reason}" for diagnosis in diagnoses if diagnosis.client is not None
    )


def _settle(
    chart: Chart, found: Mapping[Client | None, Diagnosis], now: float, policy: Policy
) -> tuple[Chart, tuple[Diagnosed, ...]]:
    """Put verdicts in force that have held for long enough."""
    seen_since = {who: _seen_since(chart, who, diagnosis.verdict, now) for who, diagnosis in found.items()}
    settled = {
        who: diagnosis
        if _in_force(chart.diagnoses.get(who), diagnosis) or now - seen_since[who] >= _STEADY * policy.hold_limit
        else chart.diagnoses[who]
        for who, diagnosis in found.items()
    }
    pending = {
        who: (diagnosis.verdict, seen_since[who])
        for who, diagnosis in found.items()
        if settled[who].verdict is not diagnosis.verdict
    }
    return replace(chart, diagnoses=settled, pending=pending), tuple(_events(chart, settled))


def _in_force(former: Diagnosis | None, diagnosis: Diagnosis) -> bool:
    """Tell whether a verdict holds at once: the first one, the same as before, or one that findings have settled."""
    if former is None or former.verdict in {diagnosis.verdict, Verdict.UNKNOWN}:
        return True
    return Verdict.LEAKING in {diagnosis.verdict, former.verdict}


def _seen_since(chart: Chart, who: Client | None, verdict: Verdict, now: float) -> float:
    pending, since = chart.pending.get(who, (None, now))
    return min(since, now) if pending is verdict else now


def _events(chart: Chart, settled: Mapping[Client | None, Diagnosis]) -> Iterator[Diagnosed]:
    for who, diagnosis in settled.items():
        former = chart.diagnoses.get(who)
        if former is None and diagnosis.verdict is Verdict.OK:
            continue  # nobody asked
        if former is None or former.verdict is not diagnosis.verdict:
            yield Diagnosed(diagnosis, former.verdict if former else None)
    for who, former in chart.diagnoses.items():
        if who is not None and who not in settled and former.verdict is not Verdict.OK:
            yield Diagnosed(Diagnosis(client=who, verdict=Verdict.OK, reason="has no session any more"), former.verdict)
