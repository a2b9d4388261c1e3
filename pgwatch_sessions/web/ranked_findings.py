"""The open findings as the page and the JSON documents list them: worst first, each with its details and advice."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from pgwatch_sessions.core.findings import Finding, FindingState
from pgwatch_sessions.core.limits import LimitId, nearest_limit
from pgwatch_sessions.core.model import Client, Session
from pgwatch_sessions.core.state import ServerState
from pgwatch_sessions.wording.advice import Advice, advice_of

#: Sessions of a client that are searched to recognise its software, for example SQLAlchemy.
_MAX_SEARCHED = 200


class RankedFinding(NamedTuple):
    """An open finding and the state of its server."""

    finding: Finding
    state: ServerState


class FindingDetails(NamedTuple):
    """An open finding with everything that is shown of it."""

    finding: Finding
    #: The state of its server.
    state: ServerState
    #: Its place on the page, for example `leak-e108b65718`.
    anchor: str
    advice: Advice
    #: The limit on connections that it reaches first; None if it reaches none.
    nearest_limit: LimitId | None
    #: The server's time at the last successful poll; ages are counted up to it.
    polled_at: float

    @property
    def seen_at(self) -> float:
        """The server's time at the last poll that saw its sessions; their ages are counted up to it."""
        return self.polled_at if self.finding.unseen_since is None else self.finding.unseen_since


def rank_findings(states: Iterable[ServerState], application: str | None = None) -> list[RankedFinding]:
    """Return the open findings, or those of one application, worst first: by severity, growth, then size.

    Findings that have no session any more come last.
    """
    ranked = [
        RankedFinding(finding, state)
        for state in states
        for finding in state.findings
        if application in {None, finding.key.client.application}
    ]
    ranked.sort(
        key=lambda each: (
            each.finding.state is FindingState.RECOVERING,
            -each.finding.severity.rank,
            not each.finding.is_leak,
            each.finding.exhaustion_seconds,
            -len(each.finding.sessions),
            each.state.server,
            each.finding.opened_as,
        )
    )
    return ranked


def add_details(ranked: Sequence[RankedFinding]) -> Iterator[FindingDetails]:
    """Yield the details of each finding, in the same order."""
    clients: dict[str, set[Client]] = {}
    for finding, state in ranked:
        clients.setdefault(state.server, set()).add(finding.key.client)
    sessions: dict[str, Mapping[Client, list[Session]]] = {}
    for finding, state in ranked:
        if state.server not in sessions:
            sessions[state.server] = _sessions_by_client(clients[state.server], state)
        yield FindingDetails(
            finding=finding,
            state=state,
            anchor=anchor_of(state.server, finding),
            advice=advice_of(finding, sessions[state.server][finding.key.client]),
            nearest_limit=nearest_limit(state.exhaustion, finding.key.client).limit,
            polled_at=finding.opened_at if state.last_poll_at is None else state.last_poll_at,
        )


def seconds_in_state(session: Session, at: float) -> float | None:
    """Return how long the session has been in its state; None if the state is hidden."""
    return None if session.state_change is None else max(0.0, at - session.state_change)


def _sessions_by_client(clients: Collection[Client], state: ServerState) -> Mapping[Client, list[Session]]:
    sessions: dict[Client, list[Session]] = {client: [] for client in clients}
    for session in state.summary.snapshot.sessions if state.summary else ():
        of_client = sessions.get(session.client)
        if of_client is not None and len(of_client) < _MAX_SEARCHED:
            of_client.append(session)
    return sessions


def anchor_of(server: str, finding: Finding) -> str:
    """Return the finding's anchor on the page: the same at each poll, and after a restart of the daemon."""
    parts = (server, *finding.opened_as.client, finding.opened_as.kind, finding.opened_as.site)
    digest = blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=5)
    return f"leak-{digest.hexdigest()}"
