"""Follows each session from poll to poll: whether it moved, and which holds ended.

A session has moved when its state or `state_change` is not what it was. A *hold* is the time in which a session that is
neither working nor returned to its pool does not move.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from pgwatch_sessions.core.model import IDLE_IN_TRANSACTION_STATES, Client, Session, SessionId
from pgwatch_sessions.core.statements import Statement

IsHeld = Callable[[Session], bool]


class Origin(NamedTuple):
    """A client at one address, usually one process or host."""

    client: Client
    client_addr: str | None


class Cohort(NamedTuple):
    """Holds that can be compared with each other: those of one client at one site."""

    client: Client
    site: str


class LastSeen(NamedTuple):
    """A session as it was before it was hidden from us."""

    session: Session
    #: The server's time of the poll that saw it.
    at: float


class OpenTransaction(NamedTuple):
    """A transaction that a session was seen in at several polls."""

    #: The server's time when it began.
    began: float
    #: Polls that saw it, and those of them that saw it idle.
    polls: int
    idle: int
    #: How often the session was seen to have moved in it.
    moves: int


@dataclass(frozen=True, slots=True)
class Track:
    """One session as it was followed over the polls."""

    session: Session
    #: Whether it was opened after our first poll, and not hidden or in a long pause between two polls.
    birth_seen: bool
    #: How often it was seen to have moved.
    moves: int
    #: While it is hidden: as it was when we last saw it; None if we never did.
    last_seen: LastSeen | None = None
    #: The last write that a poll saw in its present transaction; None if none was seen.
    last_write: Statement | None = None
    #: The transaction that it is in; None if in none.
    transaction: OpenTransaction | None = None

    @property
    def shown(self) -> Session:
        """The session as it is, or as it was before it was hidden."""
        return self.session if self.last_seen is None else self.last_seen.session

    @property
    def origin(self) -> Origin:
        """The client and the address that the session belongs to."""
        return Origin(self.session.client, self.session.client_addr)

    @property
    def cohort(self) -> Cohort:
        """What its present hold is compared with."""
        return Cohort(self.session.client, self.shown.statement.site)

    @property
    def write(self) -> Statement | None:
        """The write that its transaction is held by, if it names the place better than the last statement.

        It does not if the session shows the write itself, or if only the last statement has tags.
        """
        write, shown = self.last_write, self.shown.statement
        if write is None or write is shown or self.shown.backend_xid_age is None:
            return None
        return None if write.site == shown.site or (shown.tags and not write.tags) else write

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the place where it is held: its last statement, and its last write."""
        write, site = self.write, self.shown.statement.site
        return (site,) if write is None else (site, write.site)


class HoldEnd(Enum):
    """How a hold ended. It decides what is learned from the hold."""

    #: The session went on with something else.
    MOVED = auto()
    #: The session is gone.
    GONE = auto()
    #: The session is gone, and the server has counted sessions that it or an operator terminated.
    KILLED = auto()
    #: The session is gone, and it was known to be leaked: it was collected late, or somebody ended it.
    LEAKED = auto()
    #: The session is gone together with all others of its origin: a restart freed it.
    FREED = auto()


class EndedHold(NamedTuple):
    """A hold that ended since the last poll."""

    session: Session
    #: How long the hold lasted, accurate to the time between two polls.
    seconds: float
    how: HoldEnd


def follow_sessions(
    before: Mapping[SessionId, Track], sessions: Iterable[Session], *, births_missed: bool, last_poll_at: float | None
) -> dict[SessionId, Track]:
    """Return the track of every session, continuing the tracks of the last poll."""
    return {
        session.id: _track(
            session,
            # The start of a session that was hidden from the first is not known until it can be seen.
            before.get(session.id) or before.get(SessionId(session.id.pid, None)),
            births_missed=births_missed,
            last_poll_at=last_poll_at,
        )
        for session in sessions
    }


def ended_holds(
    before: Mapping[SessionId, Track],
    after: Mapping[SessionId, Track],
    *,
    last_poll_at: float,
    is_held: IsHeld,
    killing_databases: Collection[str],
    leaked: Collection[SessionId],
    rest_limit: float,
) -> Iterator[EndedHold]:
    """Yield the holds that ended between two polls.

    `killing_databases` have counted terminated sessions since the last poll; `leaked` are the sessions in open leaks.
    A hold whose end was missed by more than `rest_limit` seconds counts only as far as it was seen.
    """
    # When an application restarts at its address, none of the sessions that it had there remains.
    remaining = (
        {track.origin for identity, track in after.items() if identity in before}
        if before.keys() - after.keys()
        else set[Origin]()
    )
    for identity, track in before.items():
        held = track.session
        if held.state_change is None or not is_held(held):
            continue
        current = after.get(identity)
        seen_for = max(0.0, last_poll_at - held.state_change)
        if current is None:
            # The server counts terminated sessions per database only. A short hold that ends beside somebody else's
            # termination is a client that disconnected.
            if held.client.database in killing_databases and seen_for >= rest_limit / 2:
                how = HoldEnd.KILLED
            elif track.origin not in remaining:
                how = HoldEnd.FREED
            elif identity in leaked:
                how = HoldEnd.LEAKED
            else:
                how = HoldEnd.GONE
            yield EndedHold(held, seen_for, how)
        elif current.moves > track.moves:
            seconds = seen_for + _unseen_seconds(current.session, last_poll_at, rest_limit)
            yield EndedHold(held, seconds, HoldEnd.MOVED)


def _track(session: Session, before: Track | None, *, births_missed: bool, last_poll_at: float | None) -> Track:
    if before is None:
        birth_seen = not births_missed and session.state is not None
        return Track(session, birth_seen, 0, None, _last_write(session, None), _transaction(session, None, moved=False))
    if before.session is session and before.transaction is None:
        return before
    shown = before.shown
    if session.state is None:
        last_seen = before.last_seen
        if last_seen is None and shown.state is not None and last_poll_at is not None:
            last_seen = LastSeen(shown, last_poll_at)
        return Track(session, before.birth_seen, before.moves, last_seen, before.last_write, before.transaction)
    moved = (session.state is not shown.state or session.state_change != shown.state_change) and shown.state is not None
    transaction = _transaction(session, before.transaction, moved=moved)
    return Track(session, before.birth_seen, before.moves + moved, None, _last_write(session, before), transaction)


def _last_write(session: Session, before: Track | None) -> Statement | None:
    if session.xact_start is None:
        return None
    if session.statement.writes:
        return session.statement
    return before.last_write if before is not None and before.shown.xact_start == session.xact_start else None


def _transaction(session: Session, before: OpenTransaction | None, *, moved: bool) -> OpenTransaction | None:
    if session.xact_start is None:
        return None
    idle = session.state in IDLE_IN_TRANSACTION_STATES
    if before is None or before.began != session.xact_start:
        return OpenTransaction(session.xact_start, 1, int(idle), 0)
    return OpenTransaction(before.began, before.polls + 1, before.idle + idle, before.moves + moved)


def _unseen_seconds(moved: Session, last_poll_at: float, rest_limit: float) -> float:
    """Return how long a hold lasted after we last saw it: until the next statement, if that came soon."""
    moved_at = moved.query_start if moved.query_start is not None else moved.state_change
    unseen = (moved_at or 0.0) - last_poll_at
    return unseen if 0 < unseen <= rest_limit else 0.0  # if it came late, the session may have moved many times since
