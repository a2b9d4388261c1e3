"""The findings of a server as pages and documents tell them: worst first, each with its advice."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pgwatch_sessions.core.advice import Advice, advice_of
from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.forecast import Limit
from pgwatch_sessions.core.model import Client, Session
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.exposition.words import anchor_of, nearest_limit

#: Sessions of a client that are asked what software it is.
_MAX_ASKED = 200


class Evidence(NamedTuple):
    """A finding and what goes with it."""

    finding: Finding
    #: Of its server.
    state: ServerState
    #: Where it stands on the page.
    anchor: str
    advice: Advice
    #: Which limit on connections it reaches first; None when it reaches none.
    limit: Limit | None
    #: The server's time that ages are counted to: that of the last look that succeeded.
    now: float


class Ranked(NamedTuple):
    """A finding among those of all servers."""

    finding: Finding
    state: ServerState


def worst_first(states: Iterable[ServerState], application: str | None = None) -> list[Ranked]:
    """Return the open findings, those of one application if it is given: by severity, growth, then size."""
    found = [
        Ranked(finding, state)
        for state in states
        for finding in state.findings
        if application in {None, finding.key.client.application}
    ]
    found.sort(
        key=lambda each: (
            -each.finding.severity.rank,
            not each.finding.is_leak,
            each.finding.exhaustion_seconds,
            -len(each.finding.sessions),
            each.state.server,
            each.finding.opened_as,
        )
    )
    return found


def evidence_of(ranked: Sequence[Ranked]) -> Iterator[Evidence]:
    """Add to findings what goes with them."""
    clients: dict[str, set[Client]] = {}
    for finding, state in ranked:
        clients.setdefault(state.server, set()).add(finding.key.client)
    beside: dict[str, Mapping[Client, list[Session]]] = {}
    for finding, state in ranked:
        if state.server not in beside:
            beside[state.server] = _sessions_of(clients[state.server], state)
        yield Evidence(
            finding=finding,
            state=state,
            anchor=anchor_of(state.server, finding),
            advice=advice_of(finding, beside[state.server][finding.key.client]),
            limit=nearest_limit(state, finding),
            now=state.last_view.snapshot.taken_at if state.last_view else finding.opened_at,
        )


def _sessions_of(clients: set[Client], state: ServerState) -> Mapping[Client, list[Session]]:
    sessions: dict[Client, list[Session]] = {client: [] for client in clients}
    for session in state.view.snapshot.sessions if state.view and clients else ():
        own = sessions.get(session.client)
        if own is not None and len(own) < _MAX_ASKED:
            own.append(session)
    return sessions


def held_seconds(session: Session, now: float) -> float | None:
    """Return how long the session has been in its state."""
    return None if session.state_change is None else max(0.0, now - session.state_change)
