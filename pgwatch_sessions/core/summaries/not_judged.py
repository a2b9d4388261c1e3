"""The sessions that are held, or may be, and are not reported; and why. Silence would look like a clean server."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.history import Track
from pgwatch_sessions.core.judging.detection import SEVERAL
from pgwatch_sessions.core.judging.poll_context import PollContext
from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Session, SessionState
from pgwatch_sessions.core.statements import StatementKind

#: Holds are worth a line from this part of the hold limit on, or when they were there at the first of a few polls.
_SHOWN_AFTER = 1 / 6
_MIN_SHOWN = 1.0


class NotJudgedReason(StrEnum):
    """Why sessions are not reported. A closed set, because it is a value in JSON documents."""

    #: The monitoring role may not see their state.
    HIDDEN = "hidden"
    #: A maintenance tool: it may stay in a transaction as long as it does no harm.
    TOOL = "tool"
    #: Held for less than the limit that the configuration sets for its site.
    CONFIGURED = "configured_limit"
    #: Held for longer than the hold limit, but longer holds are normal at their site.
    HABIT = "habit"
    #: Idle after an application statement, of a client that was not seen to use such sessions again: a leaked session
    #: and one at rest in a pool look the same.
    HABIT_UNKNOWN = "habit_unknown"
    #: Held for less than the limit.
    YOUNG = "young"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotJudged:
    """Sessions of one client that are not reported for the same reason."""

    client: Client
    reason: NotJudgedReason
    in_transaction: bool
    sessions: int
    #: How long the longest has been in its state; None if that is hidden.
    seconds: float | None
    #: After how many seconds they would be judged; None where time is not the reason.
    limit: float | None


class _Judgement(NamedTuple):
    """Why one session is not reported; `seconds` and `limit` as above."""

    reason: NotJudgedReason
    seconds: float | None = None
    limit: float | None = None


def not_judged(context: PollContext, findings: Collection[Finding]) -> tuple[NotJudged, ...]:
    """Return the sessions that no finding is about though they are held, or may be: by reason, the longest first.

    The young sessions of a client with a finding are left out: it is reported already.
    """
    reported = {session.id for finding in findings for session in finding.sessions}
    clients = {finding.key.client for finding in findings if finding.sessions}
    groups: dict[tuple[NotJudgedReason, Client, bool], list[_Judgement]] = {}
    shown_after = _shown_after(context)
    for identity, track in context.history.tracks.items():
        if identity in reported:
            continue
        found = _judgement(track, context, shown_after)
        if found is not None and not (found.reason is NotJudgedReason.YOUNG and track.session.client in clients):
            in_transaction = track.session.state in IDLE_IN_TRANSACTION_STATES
            groups.setdefault((found.reason, track.session.client, in_transaction), []).append(found)
    lines = [
        NotJudged(
            client=client,
            reason=reason,
            in_transaction=in_transaction,
            sessions=len(group),
            seconds=max((each.seconds for each in group if each.seconds is not None), default=None),
            limit=max((each.limit for each in group if each.limit is not None), default=None),
        )
        for (reason, client, in_transaction), group in groups.items()
    ]
    order = tuple(NotJudgedReason)
    return tuple(sorted(lines, key=lambda each: (order.index(each.reason), -(each.seconds or 0.0), each.client)))


def _judgement(track: Track, context: PollContext, shown_after: float) -> _Judgement | None:
    """Return why a session is not judged; None if there is nothing to judge."""
    session = track.session
    if session.is_hidden:
        return _Judgement(NotJudgedReason.HIDDEN)
    if session.state_change is None or session.state is SessionState.ACTIVE:
        return None
    seconds = context.now - session.state_change
    if seconds < shown_after:
        return None
    is_tool = context.is_tool(session.client)
    if context.history.is_held(session):
        return _Judgement(NotJudgedReason.TOOL, seconds) if is_tool else _within_limit(track, seconds, context)
    may_be_held = not is_tool and _may_be_held(session, seconds, context)
    return _Judgement(NotJudgedReason.HABIT_UNKNOWN, seconds) if may_be_held else None


def _within_limit(track: Track, seconds: float, context: PollContext) -> _Judgement:
    limits = context.limits.at(track)
    if limits.is_configured:
        reason = NotJudgedReason.CONFIGURED
    else:
        reason = NotJudgedReason.HABIT if seconds > context.policy.hold_limit else NotJudgedReason.YOUNG
    return _Judgement(reason, seconds, limits.normal)


def _shown_after(context: PollContext) -> float:
    first_poll_at = context.history.first_poll_at
    watched = context.now - first_poll_at if first_poll_at is not None else 0.0
    return min(_SHOWN_AFTER * context.policy.hold_limit, max(watched, _MIN_SHOWN))


def _may_be_held(session: Session, seconds: float, context: PollContext) -> bool:
    return (
        session.state is SessionState.IDLE
        and session.statement.kind is StatementKind.APPLICATION
        and seconds > context.policy.hold_limit
        and context.history.rest_count(session.client) < SEVERAL
    )
