"""The findings of a server as pages and documents tell them: worst first, each with its advice."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding
from pgwatch_sessions.core.limits import LimitId, nearest_limit
from pgwatch_sessions.core.model import Client, Session
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.wording.advice import Advice, advice_of

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
    limit: LimitId | None
    #: The server's time that ages are counted to: that of the last poll that succeeded.
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
            limit=nearest_limit(state.exhaustion, finding.key.client).limit,
            now=state.last_summary.snapshot.taken_at if state.last_summary else finding.opened_at,
        )


def _sessions_of(clients: set[Client], state: ServerState) -> Mapping[Client, list[Session]]:
    sessions: dict[Client, list[Session]] = {client: [] for client in clients}
    for session in state.summary.snapshot.sessions if state.summary and clients else ():
        own = sessions.get(session.client)
        if own is not None and len(own) < _MAX_ASKED:
            own.append(session)
    return sessions


def held_seconds(session: Session, now: float) -> float | None:
    """Return how long the session has been in its state."""
    return None if session.state_change is None else max(0.0, now - session.state_change)


def anchor_of(server: str, finding: Finding) -> str:
    """Return the finding's anchor on the page: the same at each poll, and after a restart of the daemon."""
    parts = (server, *finding.opened_as.client, finding.opened_as.kind, finding.opened_as.site)
    digest = blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=5)
    return f"leak-{digest.hexdigest()}"
