"""What is remembered of sessions from look to look, and what is learned of their clients.

Nothing here judges. Everything is bounded: by the sessions that exist, and by caps on what is kept of clients that
have none.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import NamedTuple, TypeVar

from pgwatch_sessions.core.model import (
    IDLE_IN_TRANSACTION_STATES,
    NONE,
    Client,
    Session,
    SessionId,
    SessionState,
    Snapshot,
)
from pgwatch_sessions.core.statements import Kind as StatementKind

#: Clients whose habits are remembered, and sites of each of them.
_MAX_CLIENTS = 5_000
_MAX_SITES = 64
#: Rests of a client that its habit is judged by; beyond it both counts are halved, so that a habit can change.
_MAX_RESTS = 1_000
#: A client that hands back does so nearly always.
_RESTS = frozenset({StatementKind.HANDED_BACK, StatementKind.APPLICATION})
_HANDS_BACK_SHARE = 0.7
_HANDS_BACK_RESTS = 3
_MAX_ENDED_RESTS = 8
_MAX_KILLS = 8
#: A lesson counts for so long at least, and for twice as long at most: a weekly batch is still remembered, and what a
#: garbage collector gave back late does not excuse a leak for ever.
_LESSON_SECONDS = 8 * 86_400.0

_Value = TypeVar("_Value")


class Origin(NamedTuple):
    """A client at one address: what grows when one process leaks."""

    client: Client
    client_addr: str | None


class Cohort(NamedTuple):
    """Holds that may be compared with each other."""

    client: Client
    site: str


class End(Enum):
    """How a hold ended, which decides what it teaches."""

    #: The session went on to something else.
    MOVED = auto()
    #: The session is gone.
    GONE = auto()
    #: The session is gone while the server counted sessions that it or an operator ended.
    KILLED = auto()
    #: The session is gone, and with it its whole origin, or it was known to be leaked: a restart freed it.
    FREED = auto()


class EndedHold(NamedTuple):
    """A transaction that sat idle, and does so no more."""

    session: Session
    #: How long it sat, to within the time between two looks.
    seconds: float
    how: "End"


class Lesson(NamedTuple):
    """The longest holds of a site that did end, in two spans of time of which the older one is forgotten at once."""

    #: When the present span began.
    since: float
    #: Seconds, in the present span and in the one before.
    longest: float
    before: float = 0.0

    def at(self, now: float) -> "Lesson":
        """Return what is left of it by then."""
        spans = int((now - self.since) / _LESSON_SECONDS)
        if spans < 1:
            return self
        return Lesson(now, 0.0, self.longest if spans == 1 else 0.0)


@dataclass(frozen=True, slots=True)
class Track:
    """One session as it was followed."""

    session: Session
    #: Whether it began under our eyes: after the first look.
    birth_seen: bool
    #: How often it was seen to have changed state since.
    moves: int
    #: State and state_change as they were last seen, which a session that is hidden for a moment does not show.
    known: tuple[SessionState | None, float | None]

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return Origin(self.session.client, self.session.client_addr)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMemory:
    """What was learned of one client."""

    #: Last seen with a session.
    seen_at: float
    #: How often a session that was used again had rested after a hand-back, and after the application's statement.
    handed_back: int = 0
    left: int = 0
    #: By site.
    lessons: Mapping[str, Lesson] = field(default_factory=dict)
    #: When holds were ended by the server or an operator, and after how long, by site; the latest few.
    killed: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    #: When idle sessions were used again after a long rest, and how long it was; of the latest, those that no later
    #: one exceeds.
    rests: tuple[tuple[float, float], ...] = ()

    @property
    def hands_back(self) -> bool:
        """Whether this client resets its sessions when it has done with them."""
        rests = self.handed_back + self.left
        return self.handed_back >= _HANDS_BACK_RESTS and self.handed_back >= _HANDS_BACK_SHARE * rests


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is known after the last look that succeeded; kept over looks that fail."""

    #: The server's time of the first and the last look that succeeded.
    began_at: float | None = None
    taken_at: float | None = None
    started_at: float | None = None
    #: Sessions that ended by a fatal error or an operator, by database.
    deaths: Mapping[str, int] = field(default_factory=dict)
    tracks: Mapping[SessionId, Track] = field(default_factory=dict)
    clients: Mapping[Client, ClientMemory] = field(default_factory=dict)

    def hands_back(self, client: Client) -> bool:
        """Tell whether the client is known to hand its sessions back."""
        memory = self.clients.get(client)
        return memory is not None and memory.hands_back

    def rests_of(self, client: Client) -> int:
        """Return how often the client's sessions were seen to come to rest, as far as it is remembered."""
        memory = self.clients.get(client)
        return memory.handed_back + memory.left if memory else 0

    def longest_ended(self, cohort: Cohort) -> float:
        """Return the longest hold of the cohort that did end of late, 0 where none is known."""
        memory = self.clients.get(cohort.client)
        lesson = memory.lessons.get(cohort.site) if memory else None
        if lesson is None or self.taken_at is None:
            return 0.0
        lesson = lesson.at(self.taken_at)
        return max(lesson.longest, lesson.before)

    def longest_rest(self, client: Client, *, since: float) -> float:
        """Return the longest rest after which the client used a session again since then, 0 where none is known."""
        memory = self.clients.get(client)
        return max((rest for at, rest in memory.rests if at >= since), default=0.0) if memory else 0.0

    def is_held(self, session: Session) -> bool:
        """Tell whether a session is not working and was not handed back."""
        if session.state in IDLE_IN_TRANSACTION_STATES:
            return True
        return (
            session.state is SessionState.IDLE
            and session.statement.kind is StatementKind.APPLICATION
            and self.hands_back(session.client)
        )

    def name(self, snapshot: Snapshot) -> Snapshot:
        """Give sessions without application_name the application that their tags named before.

        A hand-back carries no tags, so that a session would change its client with each statement.
        """
        if all(session.client.application != NONE for session in snapshot.sessions):
            return snapshot
        return replace(snapshot, sessions=tuple(self._named(session) for session in snapshot.sessions))

    def _named(self, session: Session) -> Session:
        known = self.tracks.get(session.id)
        if known is None or session.client.application != NONE or known.session.client.application == NONE:
            return session
        return replace(session, client=known.session.client)

    def follow(
        self, snapshot: Snapshot, *, rest_limit: float, leaked: Collection[SessionId] = frozenset()
    ) -> "tuple[History, tuple[EndedHold, ...]]":
        """Take in a new look: the history after it, and the holds that ended since the last one.

        Rests shorter than `rest_limit` seconds teach nothing, nor do `leaked` sessions that are gone.
        """
        restarted = None not in {self.started_at, snapshot.server.started_at} and (
            self.started_at != snapshot.server.started_at
        )
        before: Mapping[SessionId, Track] = {} if restarted else self.tracks
        first = self.taken_at is None
        tracks = {session.id: _track(session, before.get(session.id), first) for session in snapshot.sessions}
        deaths = {counters.database: counters.fatal + counters.killed for counters in snapshot.databases}
        killers = {database for database, count in deaths.items() if count > self.deaths.get(database, count)}
        ended = () if restarted else tuple(self._ended_holds(tracks, killers, leaked, rest_limit))
        after = History(
            # A clock that was set back must not put the beginning into the future.
            began_at=snapshot.taken_at if self.began_at is None else min(self.began_at, snapshot.taken_at),
            taken_at=snapshot.taken_at,
            started_at=snapshot.server.started_at,
            deaths=deaths,
            tracks=tracks,
            clients=_learn(self.clients, before, tracks, ended, at=snapshot.taken_at, rest_limit=rest_limit),
        )
        return after, ended

    def _ended_holds(
        self,
        now: Mapping[SessionId, Track],
        killers: Collection[str],
        leaked: Collection[SessionId],
        rest_limit: float,
    ) -> Iterator[EndedHold]:
        """`killers` are the databases that counted ended sessions since the last look."""
        # Of an application that was restarted at its address, no session is there any more that was there before.
        alive = {track.origin for identity, track in now.items() if identity in self.tracks}
        for identity, track in self.tracks.items():
            held = track.session
            if held.state_change is None or self.taken_at is None or not self.is_held(held):
                continue
            current = now.get(identity)
            seen_for = max(0.0, self.taken_at - held.state_change)
            if current is None:  # gone at some time since we last saw it
                freed = identity in leaked or track.origin not in alive
                how = _end_of_gone(track, seen_for, killers=killers, freed=freed, rest_limit=rest_limit)
                yield EndedHold(held, seen_for, how)
            elif current.moves > track.moves:
                yield EndedHold(held, seen_for + self._unseen(current.session, rest_limit), End.MOVED)

    def _unseen(self, moved: Session, rest_limit: float) -> float:
        """Return how much longer than we saw it a hold lasted: until the next statement, if that was soon."""
        moved_at = moved.query_start if moved.query_start is not None else moved.state_change
        unseen = (moved_at or 0.0) - (self.taken_at or 0.0)
        return unseen if 0 < unseen <= rest_limit else 0.0  # later, it may have moved a thousand times meanwhile


def _end_of_gone(track: Track, seen_for: float, *, killers: Collection[str], freed: bool, rest_limit: float) -> End:
    # The server counts by database only: a short hold beside somebody else's end is a client that disconnected.
    if track.session.client.database in killers and seen_for >= rest_limit / 2:
        return End.KILLED
    return End.FREED if freed else End.GONE


def _track(session: Session, before: Track | None, first: bool) -> Track:
    known = (session.state, session.state_change)
    if before is None:
        return Track(session, birth_seen=not first, moves=0, known=known)
    if before.session is session:
        return before
    if session.state is None:
        return Track(session, before.birth_seen, before.moves, before.known)
    moved = known != before.known and before.known[0] is not None
    return Track(session, before.birth_seen, before.moves + moved, known)


def _learn(
    clients: Mapping[Client, ClientMemory],
    before: Mapping[SessionId, Track],
    tracks: Mapping[SessionId, Track],
    ended: Iterable[EndedHold],
    *,
    at: float,
    rest_limit: float,
) -> Mapping[Client, ClientMemory]:
    learned = dict(clients)
    for client in {track.session.client for track in tracks.values()}:
        memory = learned.get(client)
        learned[client] = replace(memory, seen_at=at) if memory else ClientMemory(seen_at=at)
    for identity, track in tracks.items():
        old = before.get(identity)
        if old is not None and old.moves < track.moves and old.session.state is SessionState.IDLE:
            client = track.session.client
            learned[client] = _note_rest(learned[client], old.session, track.session, at=at, rest_limit=rest_limit)
    for hold in ended:
        if hold.how is not End.FREED:
            _note_end(learned, hold, at)
    return _bounded(learned)


def _note_rest(memory: ClientMemory, old: Session, new: Session, *, at: float, rest_limit: float) -> ClientMemory:
    """Learn from a session that was idle and is used again. One that is never used again teaches nothing."""
    rest = (new.query_start or at) - (old.state_change or at)
    if rest > rest_limit:
        exceeding = [ended for ended in memory.rests if ended[1] > rest]
        memory = replace(memory, rests=(*exceeding[-(_MAX_ENDED_RESTS - 1) :], (at, rest)))
    kind = old.statement.kind
    if kind not in _RESTS:
        return memory
    halve = 2 if memory.handed_back + memory.left >= _MAX_RESTS else 1
    return replace(
        memory,
        handed_back=memory.handed_back // halve + (kind is StatementKind.HANDED_BACK),
        left=memory.left // halve + (kind is StatementKind.APPLICATION),
    )


def _note_end(clients: dict[Client, ClientMemory], hold: EndedHold, at: float) -> None:
    client, site = hold.session.client, hold.session.statement.site
    memory = clients.get(client) or ClientMemory(seen_at=at)
    if hold.how is End.KILLED:
        kills = (*memory.killed.get(site, ()), (at, hold.seconds))[-_MAX_KILLS:]
        clients[client] = replace(memory, killed=_with(memory.killed, site, kills))
    else:
        lesson = memory.lessons.get(site, Lesson(at, 0.0)).at(at)
        lesson = lesson._replace(longest=max(lesson.longest, hold.seconds))
        clients[client] = replace(memory, lessons=_with(memory.lessons, site, lesson))


def _with(sites: Mapping[str, _Value], site: str, value: _Value) -> Mapping[str, _Value]:
    """Return the mapping with a site's value, the site now the latest, and no more sites than are kept."""
    others = [(name, old) for name, old in sites.items() if name != site]
    return dict([*others[-(_MAX_SITES - 1) :], (site, value)])


def _bounded(clients: dict[Client, ClientMemory]) -> Mapping[Client, ClientMemory]:
    excess = len(clients) - _MAX_CLIENTS
    if excess > 0:
        # In batches, so that a stream of new names does not sort everything at each look.
        for client in sorted(clients, key=lambda client: clients[client].seen_at)[: excess + _MAX_CLIENTS // 10]:
            del clients[client]
    return clients
