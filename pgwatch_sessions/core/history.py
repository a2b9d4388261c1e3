"""What is remembered of sessions from look to look."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Session, SessionId, Snapshot


class EndedHold(NamedTuple):
    """A transaction that sat idle and moved on."""

    session: Session
    #: How long it sat, to within the time between two looks.
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The sessions of the last look that succeeded; kept over looks that fail."""

    taken_at: float | None = None
    started_at: float | None = None
    sessions: Mapping[SessionId, Session] = field(default_factory=dict)

    def follow(self, snapshot: Snapshot) -> "tuple[History, tuple[EndedHold, ...]]":
        """Take in a new look: the history after it, and the holds that ended since the last one."""
        sessions = {session.id: session for session in snapshot.sessions}
        restarted = self.started_at != snapshot.server.started_at
        ended = () if restarted else tuple(self._ended_holds(sessions))
        after = History(taken_at=snapshot.taken_at, started_at=snapshot.server.started_at, sessions=sessions)
        return after, ended

    def _ended_holds(self, now: Mapping[SessionId, Session]) -> Iterator[EndedHold]:
        for identity, held in self.sessions.items():
            if held.state not in IDLE_IN_TRANSACTION_STATES or held.state_change is None or self.taken_at is None:
                continue
            session = now.get(identity)
            if session is None:  # gone at some time since we last saw it
                yield EndedHold(held, self.taken_at - held.state_change)
            elif session.state is not None and (session.state, session.state_change) != (held.state, held.state_change):
                moved_at = session.query_start if session.query_start is not None else session.state_change
                yield EndedHold(held, max(moved_at or 0.0, self.taken_at) - held.state_change)
