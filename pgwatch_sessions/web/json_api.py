"""The published states as JSON documents. Keys are a contract, lists are bounded, statements are redacted.

Times are ISO 8601 in UTC by the clock of the watched server. Ages are in seconds, at the last successful poll.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pgwatch_sessions.core.model import Session
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.core.statements import Statement
from pgwatch_sessions.core.summaries.clients import ClientSummary
from pgwatch_sessions.recording.times import text_of
from pgwatch_sessions.web.page.headline import headline_of
from pgwatch_sessions.web.ranked_findings import FindingDetails, add_details, rank_findings, seconds_in_state
from pgwatch_sessions.wording.events import client_fields, finding_fields, finite_or_none
from pgwatch_sessions.wording.failures import failure_text
from pgwatch_sessions.wording.not_judged import not_judged_fields
from pgwatch_sessions.wording.sentences import finding_sentence

#: The most sessions, and the most findings, in one document.
MAX_LISTED = 1000
#: The most sessions of one finding, longest held first.
MAX_OF_FINDING = 100
#: The most clients of a server that are listed as not judged.
MAX_NOT_JUDGED = 100
#: Characters of a statement, as the default of track_activity_query_size.
MAX_STATEMENT = 1024

Fields = dict[str, Any]
#: By the server's name.
States = Mapping[str, ServerState]


class Selection(NamedTuple):
    """The parameters of a request."""

    server: str | None = None
    application: str | None = None
    #: The most items in a list.
    limit: int = MAX_LISTED


Document = Callable[[States, Selection], Fields]


def selection_of(parameters: Mapping[str, str], *, servers: Collection[str]) -> Selection:
    """Return the parameters of a query; ValueError if the limit is wrong, LookupError if the server is not watched."""
    limit = parameters.get("limit", str(MAX_LISTED))
    # `isdigit` is true for digits that are not ASCII too.
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and int(limit)):
        raise ValueError("limit must be a whole number of at least 1")
    server = parameters.get("server")
    if server is not None and server not in servers:
        raise LookupError("no server with this name is watched")
    return Selection(server, parameters.get("application"), min(int(limit), MAX_LISTED))


def leaks(states: States, selection: Selection) -> Fields:
    """Return the open findings of all servers, the worst first, each with its evidence and advice."""
    ranked = rank_findings(_chosen(states, selection), selection.application)
    found, room, truncated = [], MAX_LISTED, len(ranked) > selection.limit
    for details in add_details(ranked[: selection.limit]):
        listed = details.finding.sessions[: min(MAX_OF_FINDING, room)]
        room -= len(listed)
        truncated |= len(listed) < len(details.finding.sessions)
        found.append(_leak(details, listed))
    return {"leaks": found, "truncated": truncated}


def sessions(states: States, selection: Selection) -> Fields:
    """Return the sessions of each server at its last poll, longest in their state first; none if the poll failed."""
    servers, room = [], selection.limit
    for state in _chosen(states, selection):
        shown = [
            session
            for session in (state.summary.snapshot.sessions if state.summary else ())
            if selection.application in {None, session.client.application}
        ]
        shown.sort(key=lambda session: (session.state_change or 0.0, session.id.pid))
        listed = shown[:room]
        room -= len(listed)
        servers.append(
            {
                **_poll_outcome(state),
                "session_count": len(shown) if state.summary else None,
                "hidden_sessions": state.summary.hidden if state.summary else None,
                "sessions": [_session(session, state.summary.snapshot.taken_at) for session in listed]
                if state.summary
                else [],
                "truncated": len(listed) < len(shown),
            }
        )
    return {"servers": servers, "truncated": any(server["truncated"] for server in servers)}


def diagnosis(states: States, selection: Selection) -> Fields:
    """Return the verdict on each server and on its clients, and how near each limit on connections is."""
    servers, room = [], selection.limit
    for state in _chosen(states, selection):
        clients = [
            _client(summary, state)
            for summary in (state.summary.clients if state.summary else ())
            if selection.application in {None, summary.client.application}
        ]
        verdict = state.diagnoses.get(None)
        servers.append(
            {
                **_poll_outcome(state),
                "diagnosis": str(verdict.verdict) if verdict else None,
                "reason": verdict.reason if verdict else "",
                "exhausted": state.summary.exhausted if state.summary else None,
                "limits": _limits(state),
                "hidden_sessions": state.summary.hidden if state.summary else None,
                "folded_clients": state.summary.folded if state.summary else None,
                "clients": clients[:room],
                "not_judged": _not_judged(state, selection.application),
                "truncated": len(clients) > room,
            }
        )
        room -= len(clients[:room])
    headline = headline_of(tuple(states.values()))
    return {
        "headline": {"text": headline.text, "tone": str(headline.tone)},
        "servers": servers,
        "truncated": any(server["truncated"] for server in servers),
    }


#: By the last part of the address.
DOCUMENTS: Mapping[str, Document] = {
    "leaks": leaks,
    "sessions": sessions,
    "diagnosis": diagnosis,
}


def to_json(document: Fields) -> bytes:
    """Return a document as JSON; ValueError if it has an infinite number, which JSON cannot express."""
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _chosen(states: States, selection: Selection) -> Iterable[ServerState]:
    return states.values() if selection.server is None else (states[selection.server],)


def _poll_outcome(state: ServerState) -> Fields:
    """Return whether the last poll succeeded; `up` is None before the first poll."""
    failure = state.failure
    return {
        "server": state.server,
        "up": (failure is None) if state.polled else None,
        "failure": {"reason": str(failure.reason), "detail": failure.detail, "message": failure_text(failure)}
        if failure
        else None,
        "taken_at": _time(state.last_summary.snapshot.taken_at) if state.last_summary else None,
    }


def _leak(details: FindingDetails, listed: Iterable[Session]) -> Fields:
    finding, state, limit = details.finding, details.state, details.nearest_limit
    return {
        "server": state.server,
        "up": state.failure is None,
        "anchor": details.anchor,
        "message": finding_sentence(finding, at=details.polled_at),
        **finding_fields(finding),
        "origins": list(finding.origins),
        "is_leak": finding.is_leak,
        "since": _time(finding.since),
        "opened_at": _time(finding.opened_at),
        "closes_at": _time(finding.closes_at),
        "unseen_since": _time(finding.unseen_since),
        "total": finding.total,
        "recurrence": finding.recurrence._asdict() if finding.recurrence else None,
        "exhaustion_limit": {"scope": str(limit.scope), "name": limit.name} if limit else None,
        "harm": {
            "slots": finding.harm.slots,
            "blocked": finding.harm.blocked,
            "blocked_seconds": _seconds(finding.harm.blocked_seconds),
            "own_pool": finding.harm.own_pool,
            "xmin_age_max": finding.harm.xmin_age_max,
            "xid_age_max": finding.harm.xid_age_max,
        },
        "sessions": [
            {
                **_identity(session),
                "state": str(session.state) if session.state else None,
                "held_seconds": _seconds(seconds_in_state(session, details.seen_at)),
                **_statement(session.statement),
            }
            for session in listed
        ],
        "advice": {
            "cause": details.advice.cause,
            "steps": list(details.advice.steps),
            "terminate": details.advice.terminate,
            "runbook": details.advice.runbook,
            "stack": details.advice.stack._asdict() if details.advice.stack else None,
        },
    }


def _session(session: Session, now: float) -> Fields:
    return {
        **_identity(session),
        **client_fields(session.client),
        "state": str(session.state) if session.state else None,
        "state_seconds": _seconds(seconds_in_state(session, now)),
        "transaction_seconds": None if session.xact_start is None else _seconds(max(0.0, now - session.xact_start)),
        "wait_event_type": session.wait_event_type,
        "wait_event": session.wait_event,
        "blocked_by": list(session.blocked_by),
        "xid_age": session.backend_xid_age,
        "xmin_age": session.backend_xmin_age,
        **_statement(session.statement),
    }


def _identity(session: Session) -> Fields:
    return {
        "pid": session.id.pid,
        "backend_start": _time(session.id.backend_start),
        "client_addr": session.client_addr,
        "client_port": session.client_port,
    }


def _statement(statement: Statement) -> Fields:
    return {"statement": statement.text[:MAX_STATEMENT], "tags": dict(statement.tags)}


def _client(summary: ClientSummary, state: ServerState) -> Fields:
    verdict = state.diagnoses.get(summary.client)
    complete = not summary.hidden
    return {
        **client_fields(summary.client),
        "diagnosis": str(verdict.verdict) if verdict else None,
        "reason": verdict.reason if verdict else "",
        "session_count": summary.sessions,
        "hidden_sessions": summary.hidden,
        # The numbers of the visible sessions alone would look like those of all sessions.
        "states": {str(name): number for name, number in summary.states.items()} if complete else None,
        "idle_in_transaction_age_max_seconds": _seconds(summary.idle_in_transaction_age_max) if complete else None,
        "transaction_age_max_seconds": _seconds(summary.transaction_age_max) if complete else None,
        "query_age_max_seconds": _seconds(summary.query_age_max) if complete else None,
        "lock_waiting": summary.lock_waiting if complete else None,
        "blocked_by": summary.blocked_sessions if complete else None,
    }


def _not_judged(state: ServerState, application: str | None) -> list[Fields]:
    chosen = [each for each in state.not_judged if application in {None, each.client.application}]
    return list(map(not_judged_fields, chosen[:MAX_NOT_JUDGED]))


def _limits(state: ServerState) -> list[Fields]:
    return [
        {
            "scope": str(slots.scope),
            "name": slots.name,
            "capacity": slots.capacity,
            "used": slots.used,
            "exhaustion_seconds": _seconds(state.exhaustion.get(slots.limit)),
        }
        for slots in (state.summary.slots[:MAX_LISTED] if state.summary else ())
    ]


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else finite_or_none(seconds)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else text_of(seconds)
