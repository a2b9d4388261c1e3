"""What the daemon published, in words: what changed from one state to the next, and how things stand."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding, FindingKey, LeakKind, Verdict
from pgwatch_sessions.core.judging.tracked_finding import TrackedFinding
from pgwatch_sessions.core.limits import LimitId
from pgwatch_sessions.core.model import Client, LimitScope
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.summaries.clients import empty_summary
from pgwatch_sessions.demo.speech import Tone, clock

_HELD = {
    LeakKind.TRANSACTION_HELD: "idle in transaction",
    LeakKind.CONNECTION_HELD: "idle and not handed back",
    LeakKind.ORIGIN_GROWTH: "never used again",
}


class Line(NamedTuple):
    """What happened, and what kind of news it is."""

    text: str
    tone: Tone


def changes(before: ServerState, after: ServerState) -> Iterator[Line]:
    """Tell what the polls between two states have changed."""
    yield from _seen(before, after)
    yield from _findings(before, after)
    yield from _verdicts(before, after)


def _seen(before: ServerState, after: ServerState) -> Iterator[Line]:
    if after.failure and not before.failure:
        yield Line(f"the server cannot be seen: {after.failure.detail or after.failure.reason}", Tone.BAD)
    elif before.failure and not after.failure:
        yield Line("the server can be seen again", Tone.GOOD)


def _findings(before: ServerState, after: ServerState) -> Iterator[Line]:
    was, now = _by_identity(before), _by_identity(after)
    for identity, tracked in now.items():
        if identity not in was:
            yield Line(opened(tracked.finding, after), Tone.BAD)
        elif tracked.last_reported is not was[identity].last_reported:
            yield Line(changed(tracked.finding, was[identity].last_reported, after), Tone.BAD)
    for identity, tracked in was.items():
        if identity not in now:
            yield Line(closed(tracked.finding), Tone.GOOD)


def _by_identity(state: ServerState) -> dict[tuple[FindingKey, float], TrackedFinding]:
    return {(tracked.finding.opened_as, tracked.finding.opened_at): tracked for tracked in state.memory.tracked}


def _verdicts(before: ServerState, after: ServerState) -> Iterator[Line]:
    for client, diagnosis in after.diagnoses.items():
        former = before.diagnoses.get(client)
        was = former.verdict if former else Verdict.OK
        if client is not None and was is not diagnosis.verdict:
            because = f" ({diagnosis.reason})" if diagnosis.reason else ""
            tone = Tone.GOOD if diagnosis.verdict is Verdict.OK else Tone.BAD
            yield Line(f"diagnosis of {client.application}: {diagnosis.verdict}{because}, was {was}", tone)


def opened(finding: Finding, state: ServerState) -> str:
    """Say who leaks, where, since when, how fast, and how long there is left."""
    who = f"{finding.key.client.application}{' leaks' if finding.is_leak else ''}"
    sessions = f"{_sessions(len(finding.sessions))} {_HELD[finding.key.kind]} since {clock(finding.since)}"
    facts = ", ".join([sessions, *_growth(finding), *_ending(finding, state)])
    return f"{finding.severity.upper()}: {who} at {finding.key.site}: {facts}"


def changed(finding: Finding, before: Finding, state: ServerState) -> str:
    """Say how an open finding stands now; all of it again when it has become worse."""
    if finding.severity.rank > before.severity.rank:
        return opened(finding, state)
    what = f"leak at {finding.key.site}: "
    if not finding.sessions:
        return what + ("its sessions are gone" if before.sessions else "no new session")
    severity = [] if finding.severity is before.severity else [f"now {finding.severity}"]
    return what + ", ".join([_sessions(len(finding.sessions)), *_growth(finding), *_left(finding), *severity])


def closed(finding: Finding) -> str:
    """Say that it is over."""
    lost = _sessions(finding.total)
    return f"CLOSED: {finding.key.client.application} leaks no more at {finding.key.site}; {lost} in all"


def _sessions(count: int) -> str:
    return f"{count} session" if count == 1 else f"{count} sessions"


def _growth(finding: Finding) -> list[str]:
    return [f"{finding.rate_per_minute:.0f} a minute"] if finding.rate_per_minute else []


def _left(finding: Finding) -> list[str]:
    seconds = finding.exhaustion_seconds
    if math.isinf(seconds):
        return []
    return [f"{seconds:.0f} s left" if seconds else "no connection is left"]


def _ending(finding: Finding, state: ServerState) -> list[str]:
    limit = nearest_limit(finding, state)
    if limit is None:
        return []
    seconds = state.exhaustion[limit]
    when = f"in {seconds:.0f} s" if seconds else "now"
    return [f"{limit.scope} {limit.name} out of connections {when}"]


def nearest_limit(finding: Finding, state: ServerState) -> LimitId | None:
    """Return the limit that the finding's client reaches first, None if it reaches none."""
    reached = {
        limit: seconds
        for limit, seconds in state.exhaustion.items()
        if limit.applies_to(finding.key.client) and math.isfinite(seconds)
    }
    return min(reached, key=lambda limit: reached[limit], default=None)


def standing(client: Client, state: ServerState) -> str:
    """Say what the client's sessions do, how full its limits are, and the diagnosis, by the last poll."""
    view, diagnosis = state.summary, state.diagnoses.get(client)
    if view is None:
        return "the server cannot be seen"
    summary = next((each for each in view.clients if each.client == client), empty_summary(client))
    does = ", ".join(f"{count} {name}" for name, count in summary.states.items() if count) or "no session"
    limits = ", ".join(
        f"{each.scope}{'' if each.scope is LimitScope.SERVER else f' {each.name}'} {each.used}/{each.capacity}"
        for each in view.slots
        if each.limit.applies_to(client)
    )
    return f"{client.application}: {does} | {limits} | {diagnosis.verdict if diagnosis else 'not judged yet'}"


def broken(statement: str) -> str:
    """Return one of the daemon's statements on two lines."""
    return "  " + statement.replace(" WHERE ", "\n   WHERE ", 1)
